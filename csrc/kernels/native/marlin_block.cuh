// A block's share of a launch, and its pipeline of stages in shared memory.
//
// A stage holds, of stage_k k, the block's warp rows: codes [chunk][strip][256 bytes], activations [chunk][row][64 bytes]
// with their 16-byte units swizzled for ldmatrix, numbers [group][strip][unit].
#pragma once

#include <cooperative_groups.h>

#include "kernels/native/async_copy.cuh"
#include "kernels/native/marlin_kernel.h"
#include "kernels/native/marlin_layout.h"

namespace qf::cuda {

constexpr int kChunkBytes = kChunkWords * 4;
constexpr int kActivationChunkBytes = kChunkK * 2;

/// Where unit `unit` (8 k) of a row lies in a chunk of activations: 8 rows of one unit touch all 32 banks.
__device__ __forceinline__ int activation_offset(int row, int unit) {
  return row * kActivationChunkBytes + ((unit ^ (row >> 1 & 3)) << 4);
}

struct BlockShare {
  int rank;                // in the cluster
  int first_strip, strips;
  int first_row, rows;
  int classes, class_shift;  // warp rows of this block
  int tile_k;

  __device__ explicit BlockShare(const MarlinArgs& args) {
    const MarlinShape& shape = args.shape;
    rank = static_cast<int>(blockIdx.x) % shape.cluster;
    const int group = static_cast<int>(blockIdx.x) / shape.cluster, units = args.strips / shape.strip_tiles;
    first_strip = group * units / shape.groups * shape.strip_tiles;
    strips = (group + 1) * units / shape.groups * shape.strip_tiles - first_strip;
    const RowBlock block = args.row_blocks[blockIdx.y];
    first_row = block.begin, rows = block.end - block.begin;
    classes = args.warp_rows / shape.cluster;
    class_shift = classes == 4 ? 2 : classes - 1;
    tile_k = args.warp_rows * kChunkK;
  }
  /// The chunk of the weight that is chunk `i` of a stage that starts at k-tile `tile`.
  __device__ int chunk_of(const MarlinArgs& args, int tile, int i) const {
    return (tile + (i >> class_shift)) * args.warp_rows + rank * classes + (i & (classes - 1));
  }
};

class Pipeline {
 public:
  __device__ Pipeline(const MarlinArgs& args, const BlockShare& share, char* shared, CopyBarrier* full)
      : args_(args), share_(share), shared_(shared), full_(full) {
    const MarlinShape& shape = args.shape;
    stage_tiles_ = shape.stage_k / share.tile_k;
    const int chunks = stage_tiles_ * share.classes;
    activations_at_ = chunks * shape.group_strips * kChunkBytes;
    numbers_at_ = activations_at_ + chunks * args.rows * kActivationChunkBytes;
    stage_bytes_ = numbers_at_ + groups_in(shape.stage_k) * shape.group_strips * args.number_units * 16;
  }
  __device__ int stage_tiles() const { return stage_tiles_; }
  __device__ int stages() const { return (args_.k + args_.shape.stage_k - 1) / args_.shape.stage_k; }
  __device__ const char* codes(int slot) const { return shared_ + slot * stage_bytes_; }
  __device__ const char* activations(int slot) const { return codes(slot) + activations_at_; }
  __device__ const char* numbers(int slot) const { return codes(slot) + numbers_at_; }

  /// Codes and numbers of a stage: one warp, a copy per lane. Weights are constant: no wait for earlier kernels.
  __device__ void fetch_weights(int stage, int slot) const {
    const int k = stage * args_.shape.stage_k, length = min(args_.shape.stage_k, args_.k - k);
    const int tile = k / share_.tile_k, chunks = length / share_.tile_k * share_.classes, groups = groups_in(length);
    const uint32_t chunk_bytes = static_cast<uint32_t>(share_.strips * kChunkBytes);
    const uint32_t group_bytes = static_cast<uint32_t>(share_.strips * args_.number_units * 16);
    CopyBarrier& full = full_[slot];
    const int lane = static_cast<int>(threadIdx.x) % 32;
    if (lane == 0) full.arrive_expecting(chunks * chunk_bytes + groups * group_bytes);
    __syncwarp();
    char* const base = shared_ + slot * stage_bytes_;
    for (int i = lane; i < chunks; i += 32) {
      const int64_t from = static_cast<int64_t>(share_.chunk_of(args_, tile, i)) * args_.strips + share_.first_strip;
      copy_bulk(base + i * chunk_bytes, args_.codes + from * (kChunkBytes / 16), chunk_bytes, full);
    }
    for (int i = lane; i < groups; i += 32) {
      const int64_t from = static_cast<int64_t>((k >> args_.group_shift) + i) * args_.strips + share_.first_strip;
      copy_bulk(base + numbers_at_ + i * group_bytes, args_.numbers + from * args_.number_units, group_bytes, full);
    }
  }
  /// Activations of a stage: every thread, a chunk per warp at a time.
  __device__ void fetch_activations(int stage, int slot) const {
    const int k = stage * args_.shape.stage_k, length = min(args_.shape.stage_k, args_.k - k);
    const int tile = k / share_.tile_k, chunks = length / share_.tile_k * share_.classes;
    const int lane = static_cast<int>(threadIdx.x) % 32, warps = static_cast<int>(blockDim.x) / 32;
    const uint32_t base = shared_address(shared_ + slot * stage_bytes_ + activations_at_);
    for (int i = static_cast<int>(threadIdx.x) / 32; i < chunks; i += warps) {
      const char* from = args_.activations + share_.first_row * args_.activation_bytes +
                         static_cast<int64_t>(share_.chunk_of(args_, tile, i)) * kActivationChunkBytes;
      for (int u = lane; u < share_.rows * 4; u += 32) {
        copy_16_async(base + i * share_.rows * kActivationChunkBytes + activation_offset(u >> 2, u & 3),
                      from + (u >> 2) * args_.activation_bytes + (u & 3) * 16);
      }
    }
    full_[slot].arrive_after_copies();
  }

 private:
  /// One group of numbers serves a stage inside of it.
  __device__ int groups_in(int length) const { return max(1, length >> args_.group_shift); }

  const MarlinArgs& args_;
  const BlockShare& share_;
  char* shared_;
  CopyBarrier* full_;
  int stage_tiles_, activations_at_, numbers_at_, stage_bytes_;
};

}  // namespace qf::cuda
