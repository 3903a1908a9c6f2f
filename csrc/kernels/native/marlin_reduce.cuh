// From partial sums to outputs: warp rows of a slice, slices from the largest k down, the plan's roundings, the
// epilogue.
#pragma once

#include "kernels/emulate/cuda/epilogue.cuh"
#include "kernels/native/marlin_walk.cuh"

namespace qf::cuda {

/// The partial sums of a cluster: one or two warp rows apart, and the sum of the others.
struct ClusterLeaves {
  const float* base[3];
  int count;
  int stride[3];  // from slice to slice
  int pitch;
  static constexpr int kAhead = 3;

  /// Four columns from `at` on: r0 + (r1 + rest), r0 + rest, or rest.
  __device__ float4 slice(int s, int at) const {
    const auto leaf = [&](int q) { return *reinterpret_cast<const float4*>(base[q] + s * stride[q] + at); };
    if (count == 3) {
      const float4 r0 = leaf(0), r1 = leaf(1), rest = leaf(2);
      return add(r0, add(r1, rest));
    }
    return count == 2 ? add(leaf(0), leaf(1)) : leaf(0);
  }
  /// From the largest k down.
  __device__ float4 sum(int slices, int at, Narrow hop) const {
    float4 sum = slice(slices - 1, at);
    if (slices > 1) sum = rounded(hop, sum);
#pragma unroll 1
    for (int s = slices - 2; s >= 0; s -= kAhead) {
      float4 next[kAhead];  // loads of several slices, in flight together
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        if (s >= i) next[i] = slice(s - i, at);
      }
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        if (s < i) break;
        sum = add(next[i], sum);
        if (s > i) sum = rounded(hop, sum);
      }
    }
    return sum;
  }
  __device__ static float4 add(float4 a, float4 b) {
    return {__fadd_rn(a.x, b.x), __fadd_rn(a.y, b.y), __fadd_rn(a.z, b.z), __fadd_rn(a.w, b.w)};
  }
  __device__ static float4 rounded(Narrow narrow, float4 a) {
    return {narrowed(narrow, a.x), narrowed(narrow, a.y), narrowed(narrow, a.z), narrowed(narrow, a.w)};
  }
};

__device__ inline ClusterLeaves cluster_leaves(const MarlinArgs& args, const BlockShare& share, const LeafTable& mine) {
  const int apart = args.shape.cluster == 2 ? args.classes : 0, slot = mine.rows * mine.pitch;
  const auto table = [&](int rank) -> const float* {
    if (rank == share.rank) return mine.base;
    if (args.leaves != nullptr) return mine.base + static_cast<int64_t>(rank - share.rank) * args.shape.leaf_floats;
    return in_block(mine.base, rank);
  };
  ClusterLeaves all{{}, apart + 1, {}, mine.pitch};
#pragma unroll
  for (int q = 0; q < 3; ++q) {
    const bool rest = q >= apart;
    all.base[q] = table(rest ? args.shape.cluster - 1 : 0) + (rest ? 0 : q * slot);
    all.stride[q] = mine.slots * slot;
  }
  return all;
}

__device__ inline float channel_scale(const MarlinArgs& args, int column) {
  const uint32_t* words = args.channel_scales + static_cast<int64_t>(column / kStripColumns) * args.number_units * 4;
  const uint32_t pair = words[column % 8];
  return widened(args.epilogue.output, static_cast<uint16_t>(column & 8 ? pair >> 16 : pair));
}

/// Four columns of a row per thread of the walking warps; the blocks of a cluster share the outputs.
__device__ inline void reduce_and_store(const MarlinArgs& args, const BlockShare& share, const ClusterLeaves& leaves,
                                        const int* slices) {
  const int fours = share.strips * (kStripColumns / 4), threads = static_cast<int>(blockDim.x) - 32 * kFetchingWarps;
  for (int i = share.rank * threads + static_cast<int>(threadIdx.x); i < share.rows * fours;
       i += args.shape.cluster * threads) {
    const int row = i / fours, column = i % fours * 4, n = share.first_strip * kStripColumns + column;
    const float4 sum = leaves.sum(slices[column / kStripColumns], row * leaves.pitch + column, args.hop);
    const float sums[4] = {sum.x, sum.y, sum.z, sum.w};
    uint16_t bits[4];
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const float scale = args.epilogue.channel_scale ? channel_scale(args, n + c) : 1.0f;
      const float bias =
          args.epilogue.bias == BiasRule::none ? 0.0f : load_number(args.epilogue.output, args.bias, n + c);
      store_number(args.epilogue.output, bits, c, finished(args.epilogue, sums[c], scale, bias));
    }
    uint16_t* const to = static_cast<uint16_t*>(args.out) + (share.first_row + row) * args.ldo + n;
    *reinterpret_cast<ushort4*>(to) = make_ushort4(bits[0], bits[1], bits[2], bits[3]);  // aligned: checked by the call
  }
}

}  // namespace qf::cuda
