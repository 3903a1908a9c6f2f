// A block's share of a launch, and its pipeline of stages in shared memory: two warps fetch, the others walk.
//
// A stage holds, of stage_tiles k-tiles, the block's warp rows: activations [k-tile][warp row][row][64 bytes] as the
// copy engine swizzles them, codes [k-tile][warp row][strip][256 bytes], numbers [group][strip][unit]. One copy each.
#pragma once

#include "kernels/native/async_copy.cuh"
#include "kernels/native/marlin_kernel.h"
#include "kernels/native/marlin_layout.h"

namespace qf::cuda {

/// Where unit `unit` (8 k) of a row lies in a chunk of activations (the engine's 64-byte swizzle): 8 rows of one unit
/// touch all 32 banks.
__device__ __forceinline__ uint32_t activation_offset(int row, int unit) {
  return static_cast<uint32_t>(row * kActivationChunkBytes + ((unit ^ (row >> 1 & 3)) << 4));
}

struct BlockShare {
  int rank;  // in the cluster
  int first_strip, strips;
  int first_row, rows;

  __device__ explicit BlockShare(const MarlinArgs& args) {
    const MarlinShape& shape = args.shape;
    rank = static_cast<int>(blockIdx.x) & (shape.cluster - 1);
    const int group = static_cast<int>(blockIdx.x) >> (__ffs(shape.cluster) - 1);
    const int rest = args.units - shape.groups * args.group_units;  // the first groups have one unit more
    first_strip = (group * args.group_units + min(group, rest)) * shape.strip_tiles;
    strips = (args.group_units + (group < rest ? 1 : 0)) * shape.strip_tiles;
    const RowBlock block = args.row_blocks[blockIdx.y];
    first_row = block.begin, rows = block.end - block.begin;
  }
};

/// The slots of the pipeline and their barriers.
struct Stages {
  uint32_t base, bytes;
  uint32_t barriers;  // full, empty of each slot
  int slots, count;   // stages at once, stages of K

  __device__ Stages(const MarlinArgs& args, uint32_t shared, uint32_t first_barrier)
      : base(shared),
        bytes(static_cast<uint32_t>(args.stage.bytes)),
        barriers(first_barrier),
        slots(args.shape.stages),
        count(args.stage_count) {}
  __device__ uint32_t at(int slot) const { return base + slot * bytes; }
  __device__ CopyBarrier full(int slot) const { return {barriers + slot * 16}; }
  __device__ CopyBarrier empty(int slot) const { return {barriers + slot * 16 + 8}; }

  /// One thread: calls fetch(stage, slot) for every stage as slots become free.
  template <class Fetch>
  __device__ __forceinline__ void keep_filled(Fetch fetch) const {
    int slot = 0;
    uint32_t parity = 1;  // of a fresh barrier: the slots are free
    for (int i = 0; i < count; ++i) {
      empty(slot).wait(parity);
      fetch(i, slot);
      if (++slot == slots) slot = 0, parity ^= 1;
    }
  }
};

/// Codes and numbers. They are constant: no wait for earlier kernels.
__device__ inline void fetch_weights(const MarlinArgs& args, const MarlinMaps& maps, const Stages& stages,
                                     const BlockShare& share) {
  stages.keep_filled([&](int stage, int slot) {
    const CopyBarrier full = stages.full(slot);
    full.arrive_expecting(static_cast<uint32_t>(args.stage.weight_bytes));
    copy_box(stages.at(slot) + args.stage.codes_at, maps.codes, 0, share.first_strip, share.rank * args.classes,
             stage * args.stage_tiles, full);
    copy_box(stages.at(slot) + args.stage.numbers_at, maps.numbers, 0, share.first_strip, stage * args.stage_groups,
             full);
  });
  let_next_kernel_start();
}

/// Activations, which earlier kernels wrote.
__device__ inline void fetch_activations(const MarlinArgs& args, const MarlinMaps& maps, const Stages& stages,
                                         const BlockShare& share) {
  stages.keep_filled([&](int stage, int slot) {
    const CopyBarrier full = stages.full(slot);
    full.arrive_expecting(static_cast<uint32_t>(args.stage.codes_at));
    copy_box(stages.at(slot), maps.activations, 0, share.first_row, share.rank * args.classes, stage * args.stage_tiles,
             full);
  });
}

}  // namespace qf::cuda
