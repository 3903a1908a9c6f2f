// From partial sums to outputs: warp rows of a slice, slices from the largest k down, the plan's roundings, the epilogue.
#pragma once

#include "kernels/emulate/cuda/epilogue.cuh"
#include "kernels/native/marlin_walk.cuh"

namespace qf::cuda {

/// The partial sums of a cluster: one table per warp row of the plan (one in all where warps hold all warp rows).
struct ClusterLeaves {
  const float* base[4];
  int slice_stride, pitch, count;

  __device__ float slice(int s, int at) const {
    const int from = s * slice_stride + at;
    if (count == 4) {
      const float upper = __fadd_rn(base[3][from], base[2][from]);
      return __fadd_rn(base[0][from], __fadd_rn(base[1][from], upper));
    }
    return count == 2 ? __fadd_rn(base[0][from], base[1][from]) : base[0][from];
  }
  __device__ float sum(int slices, int at, Narrow hop) const {
    float sum = slice(slices - 1, at);
    if (slices > 1) sum = narrowed(hop, sum);
    for (int s = slices - 2; s >= 0; --s) {
      sum = __fadd_rn(slice(s, at), sum);
      if (s > 0) sum = narrowed(hop, sum);
    }
    return sum;
  }
};

__device__ inline ClusterLeaves cluster_leaves(const MarlinArgs& args, const BlockShare& share, const LeafTable& mine) {
  namespace cg = cooperative_groups;
  const int classes = mine.classes;
  ClusterLeaves all{{}, mine.rows * mine.pitch * classes, mine.pitch, args.shape.chains > 1 ? 1 : args.warp_rows};
#pragma unroll
  for (int q = 0; q < 4; ++q) {
    if (q >= all.count) break;
    const int rank = q / classes;
    float* base = mine.base;
    if (args.leaves != nullptr) {
      base += static_cast<int64_t>(rank - share.rank) * args.shape.leaf_floats;
    } else if (rank != share.rank) {
      base = cg::this_cluster().map_shared_rank(base, static_cast<unsigned>(rank));
    }
    all.base[q] = base + q % classes * mine.rows * mine.pitch;
  }
  return all;
}

__device__ inline float channel_scale(const MarlinArgs& args, int column) {
  const auto* words = reinterpret_cast<const uint32_t*>(args.numbers) +
                      static_cast<int64_t>(column / kStripColumns) * args.number_units * 4;
  const uint32_t pair = words[column % 8];
  return widened(args.epilogue.output, static_cast<uint16_t>(column & 8 ? pair >> 16 : pair));
}

/// Two columns of a row per thread; the blocks of a cluster share the outputs.
__device__ inline void reduce_and_store(const MarlinArgs& args, const BlockShare& share, const ClusterLeaves& leaves,
                                        const int* slices) {
  const int pairs = share.strips * (kStripColumns / 2), threads = static_cast<int>(blockDim.x);
  for (int i = share.rank * threads + static_cast<int>(threadIdx.x); i < share.rows * pairs;
       i += args.shape.cluster * threads) {
    const int row = i / pairs, column = i % pairs * 2;
    const int64_t to = (share.first_row + row) * args.ldo + share.first_strip * kStripColumns + column;
    uint16_t bits[2];
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const int n = share.first_strip * kStripColumns + column + c;
      const float sum = leaves.sum(slices[column / kStripColumns], row * leaves.pitch + column + c, args.hop);
      const float scale = args.epilogue.channel_scale ? channel_scale(args, n) : 1.0f;
      const float bias =
          args.epilogue.bias == BiasRule::none ? 0.0f : load_number(args.epilogue.output, args.bias, n);
      store_number(args.epilogue.output, bits, c, finished(args.epilogue, sum, scale, bias));
    }
    // rows of the output are aligned to 16 bytes, columns come in pairs
    reinterpret_cast<ushort2*>(static_cast<uint16_t*>(args.out) + to)[0] = make_ushort2(bits[0], bits[1]);
  }
}

}  // namespace qf::cuda
