// A block's share of a launch, and its pipeline of stages in shared memory: two warps fetch, the others walk.
//
// A stage holds, of stage_k k, the block's warp rows: activations [chunk][row][64 bytes] as the copy engine swizzles them,
// codes [chunk][strip][256 bytes], numbers [group][strip][unit].
#pragma once

#include <cooperative_groups.h>

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
  int class_shift, classes;  // warp rows of this block
  int tile_k;

  __device__ explicit BlockShare(const MarlinArgs& args) {
    const MarlinShape& shape = args.shape;
    rank = static_cast<int>(blockIdx.x) & (shape.cluster - 1);
    const int group = static_cast<int>(blockIdx.x) >> (__ffs(shape.cluster) - 1);
    const int rest = args.units - shape.groups * args.group_units;  // the first groups have one unit more
    first_strip = (group * args.group_units + min(group, rest)) * shape.strip_tiles;
    strips = (args.group_units + (group < rest ? 1 : 0)) * shape.strip_tiles;
    const RowBlock block = args.row_blocks[blockIdx.y];
    first_row = block.begin, rows = block.end - block.begin;
    class_shift = args.class_shift;
    classes = 1 << class_shift;
    tile_k = args.warp_rows * kChunkK;
  }
};

/// The slots of the pipeline.
struct Stages {
  const MarlinArgs& args;
  char* shared;
  CopyBarrier* full;
  CopyBarrier* empty;
  int tiles;   // k-tiles of a stage
  int count;   // stages of K
  int k_tiles;  // of K

  __device__ Stages(const MarlinArgs& all, const BlockShare& share, char* memory, CopyBarrier* barriers)
      : args(all), shared(memory), full(barriers), empty(barriers + kMarlinStages) {
    tiles = args.stage_tiles, count = args.stage_count;
    k_tiles = args.k / share.tile_k;
  }
  __device__ char* activations(int slot) const { return shared + slot * args.stage.bytes; }
  __device__ char* codes(int slot) const { return activations(slot) + args.stage.codes_at; }
  __device__ char* numbers(int slot) const { return activations(slot) + args.stage.numbers_at; }
};

/// Calls fetch(k-tiles, slot) for every stage as slots become free.
template <class Fetch>
__device__ __forceinline__ void keep_filled(const Stages& stages, Fetch fetch) {
  const int slots = stages.args.shape.stages;
  int slot = 0;
  uint32_t parity = 1;  // of a fresh barrier: the slots are free
  for (int i = 0; i < stages.count; ++i) {
    stages.empty[slot].wait(parity);
    fetch(min(stages.tiles, stages.k_tiles - i * stages.tiles), slot);
    if (++slot == slots) slot = 0, parity ^= 1;
  }
}

/// One thread fetches codes and numbers. They are constant: no wait for earlier kernels.
__device__ inline void fetch_weights(const Stages& stages, const BlockShare& share) {
  const MarlinArgs& args = stages.args;
  const int64_t code_stride = static_cast<int64_t>(args.strips) * (kChunkBytes / 16);  // from chunk to chunk
  const int64_t number_stride = static_cast<int64_t>(args.strips) * args.number_units;
  const uint32_t code_bytes = static_cast<uint32_t>(share.strips * kChunkBytes);
  const uint32_t number_bytes = static_cast<uint32_t>(share.strips * args.number_units * 16);
  const uint4* codes = args.codes + share.rank * share.classes * code_stride + share.first_strip * (kChunkBytes / 16);
  const uint4* numbers = args.numbers + static_cast<int64_t>(share.first_strip) * args.number_units;
  int k = 0;
  keep_filled(stages, [&](int tiles, int slot) {
    CopyBarrier& full = stages.full[slot];
    const int groups = max(1, (tiles * share.tile_k) >> args.group_shift);
    full.arrive_expecting((static_cast<uint32_t>(tiles) << share.class_shift) * code_bytes +
                          static_cast<uint32_t>(groups) * number_bytes);
    char* to = stages.codes(slot);
    for (int tile = 0; tile < tiles; ++tile, codes += args.warp_rows * code_stride) {
      for (int c = 0; c < share.classes; ++c, to += code_bytes) {
        copy_bulk(to, codes + c * code_stride, code_bytes, full);
      }
    }
    to = stages.numbers(slot);
    const uint4* from = numbers + (k >> args.group_shift) * number_stride;
    for (int g = 0; g < groups; ++g, to += number_bytes, from += number_stride) {
      copy_bulk(to, from, number_bytes, full);
    }
    k += tiles * share.tile_k;
  });
  let_next_kernel_start();
}

/// Another thread fetches activations, which earlier kernels wrote.
__device__ inline void fetch_activations(const Stages& stages, const BlockShare& share, const CUtensorMap& map) {
  const int chunk_bytes = stages.args.stage.activation_bytes;
  int k = share.rank * share.classes * kChunkK;
  keep_filled(stages, [&](int tiles, int slot) {
    CopyBarrier& full = stages.full[slot];
    full.arrive_expecting(static_cast<uint32_t>(tiles * chunk_bytes) << share.class_shift);
    char* to = stages.activations(slot);
    for (int tile = 0; tile < tiles; ++tile, k += share.tile_k) {
      for (int c = 0; c < share.classes; ++c, to += chunk_bytes) {
        copy_box(to, map, k + c * kChunkK, share.first_row, full);
      }
    }
  });
}

}  // namespace qf::cuda
