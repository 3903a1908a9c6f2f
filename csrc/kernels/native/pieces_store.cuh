// From a warp's accumulators to rows of the output: roundings, bias, and a transposition in registers.
#pragma once

#include <type_traits>

#include "kernels/emulate/cuda/epilogue.cuh"
#include "kernels/native/pieces_kernel.h"
#include "kernels/native/wgmma_left.cuh"

namespace qf::cuda {

/// An 8 x 8 matrix of 16-bit numbers, transposed across the warp: lane = 4 row + column / 2 before and after.
__device__ __forceinline__ uint32_t transposed(uint32_t pair) {
  uint32_t out;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(pair));
  return out;
}

/// Two sums of one column as bits of the output's format.
template <class Unit>
__device__ __forceinline__ uint32_t pair_of(float low, float high) {
  if constexpr (std::is_same_v<Unit, Bf16>) {
    return bf16_bits(low) | static_cast<uint32_t>(bf16_bits(high)) << 16;
  } else {
    return half_bits(low) | static_cast<uint32_t>(half_bits(high)) << 16;
  }
}

/// Rows 8 j + 2 (lane % 4), + 1 of column lane / 4 (`upper`: of that column + 8), finished.
template <class Unit, bool kBias>
__device__ __forceinline__ uint32_t finished_pair(const Epilogue& rule, const typename Sums<Unit, 8>::Word* sums, int j,
                                                  bool upper, float bias) {
  float low, high;
  if constexpr (std::is_same_v<Unit, Fp16Sums>) {
    const uint32_t word = sums[2 * j + (upper ? 1 : 0)];
    if constexpr (!kBias) return word;
    low = half_to_float(static_cast<uint16_t>(word)), high = half_to_float(static_cast<uint16_t>(word >> 16));
  } else {
    low = sums[4 * j + (upper ? 2 : 0)], high = sums[4 * j + (upper ? 3 : 1)];
  }
  if constexpr (kBias) low = finished(rule, low, 1.0f, bias), high = finished(rule, high, 1.0f, bias);
  return pair_of<Unit>(low, high);
}

template <class Unit, int kRows, bool kBias>
__device__ __forceinline__ void store_rows(const PiecesArgs& args, const PieceItem& item, int column,
                                           const typename Sums<Unit, 8>::Word* sums) {
  const int lane = static_cast<int>(threadIdx.x) % 32, own = column + lane / 4, to = column + 2 * (lane % 4);
  float bias[2] = {};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (kBias && own + 8 * i < item.column_end) bias[i] = load_number(args.epilogue.output, args.bias, own + 8 * i);
  }
  uint16_t* at = static_cast<uint16_t*>(args.out) + (item.row + lane / 4) * args.ldo + to;
  const int rows = item.row_end - item.row;
#pragma unroll
  for (int j = 0; j < kRows / 8; ++j, at += 8 * args.ldo) {
    if (8 * j >= rows) break;  // alike in all lanes
    const bool there = 8 * j + lane / 4 < rows;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint32_t bits = transposed(finished_pair<Unit, kBias>(args.epilogue, sums, j, i == 1, bias[i]));
      if (there && to + 8 * i < item.column_end) *reinterpret_cast<uint32_t*>(at + 8 * i) = bits;
    }
  }
}

/// A warp's strip of 16 columns from `column` on.
template <class Unit, int kRows>
__device__ __forceinline__ void store_strip(const PiecesArgs& args, const PieceItem& item, int column,
                                            const typename Sums<Unit, 8>::Word* sums) {
  if (args.epilogue.bias == BiasRule::none) {
    store_rows<Unit, kRows, false>(args, item, column, sums);
  } else {
    store_rows<Unit, kRows, true>(args, item, column, sums);
  }
}

}  // namespace qf::cuda
