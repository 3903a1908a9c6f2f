// The online softmax of a block of keys: scores in shared memory become probabilities, as operators/flash_rows.cpp has
// it.
#pragma once

#include "operators/cuda/flash_job.h"
#include "operators/cuda/flash_operand.cuh"
#include "operators/cuda/sfu_choice.cuh"

namespace qf::cuda {

/// What a row keeps from block to block, in shared memory.
struct RowStates {
  float *largest, *sums;  // [rows], [rows][4]: one per thread of a quad
  float* factor;          // [rows]: what the outputs are multiplied with next; kKeep: nothing
};
constexpr float kKeep = -1.0f;  // no ex2 and no rcp of a sum gives it

/// ex2 by tables, or by the GPU's own unit where it is known to give the same.
struct Ex2 {
  SfuCurve curve;
  bool own;

  __device__ __forceinline__ float operator()(float x) const {
    if (own) return OwnUnitSfu{}.ex2(x);
    SfuView view{};
    view.ex2_curve = curve;
    return view.ex2(x);
  }
};

/// kLanes neighbouring lanes share a row: quad thread t = lane % 4 of them, each with every (kLanes / 4)th octet of
/// columns.
template <int kLanes>
struct RowLane {
  static constexpr int kOctets = kLanes / 4;
  int row, t, octet;
  __device__ RowLane() : row(threadIdx.x / kLanes), t(threadIdx.x % 4), octet(threadIdx.x % kLanes / 4) {}
  __device__ bool leads() const { return threadIdx.x % kLanes == 0; }

  __device__ float largest_of(const float* scores, int visible) const {
    float largest = -INFINITY;
#pragma unroll 4
    for (int j = octet; 8 * j < visible; j += kOctets) {
      const int column = 8 * j + 2 * t;
      const float2 pair = *reinterpret_cast<const float2*>(scores + column);
      if (column < visible && pair.x > largest) largest = pair.x;  // a NaN is passed over
      if (column + 1 < visible && pair.y > largest) largest = pair.y;
    }
#pragma unroll
    for (int offset = 1; offset < kLanes; offset *= 2) {
      const float other = __shfl_xor_sync(0xFFFFFFFFu, largest, offset);
      if (other > largest) largest = other;
    }
    return largest;
  }
};

/// The sum of thread t goes on over its columns, ascending.
__device__ __forceinline__ float quad_sum(const float* p, int padded, bool first_block, float rescale, float sum) {
  float2 pair = *reinterpret_cast<const float2*>(p);
  sum = __fadd_rn(first_block ? pair.x : flush_subnormal(fmaf(rescale, sum, pair.x)), pair.y);
#pragma unroll 4
  for (int column = 8; column < padded; column += 8) {
    pair = *reinterpret_cast<const float2*>(p + column);
    sum = __fadd_rn(__fadd_rn(sum, pair.x), pair.y);
  }
  return sum;
}

/// One row and block. visible <= 0: the row does not see the block. All lanes of a warp come here with the same
/// `padded`.
template <class Format, int kLanes, bool kExponents>
__device__ void softmax_row(const RowLane<kLanes>& lane, float* scores, int visible, int padded, float log2_scale,
                            const Ex2& ex2, const RowStates& states, const Chunks<kExponents>& probabilities) {
  const float seen = lane.largest_of(scores, visible);
  const float before = states.largest[lane.row];
  const float largest = before < seen ? seen : before;
  const bool first_block = before == -INFINITY;
  float rescale = kKeep;
  if (!first_block && visible > 0) {
    rescale = ex2(flush_subnormal(__fmul_rn(flush_subnormal(__fsub_rn(before, largest)), log2_scale)));
  }
  const float offset = largest == -INFINITY ? 0.0f : flush_subnormal(__fmul_rn(flush_subnormal(largest), log2_scale));
#pragma unroll 4
  for (int j = lane.octet; 8 * j < padded; j += RowLane<kLanes>::kOctets) {
    const int column = 8 * j + 2 * lane.t;
    float2 pair = *reinterpret_cast<const float2*>(scores + column);
    pair.x = column < visible ? ex2(fmaf(flush_subnormal(pair.x), log2_scale, -offset)) : 0.0f;
    pair.y = column + 1 < visible ? ex2(fmaf(flush_subnormal(pair.y), log2_scale, -offset)) : 0.0f;
    *reinterpret_cast<float2*>(scores + column) = pair;
    const uint32_t narrowed = narrow_pair<Format>(pair.x, pair.y);
    probabilities.template put<Format>(column / kChunk, lane.row, column % kChunk, narrowed, 0);
  }
  __syncwarp();
  if (lane.octet == 0 && visible > 0) {  // the sum is of the unrounded numbers
    float* sum = states.sums + 4 * lane.row + lane.t;
    *sum = quad_sum(scores + 2 * lane.t, padded, first_block, rescale, *sum);
  }
  if (lane.leads()) {
    if (visible > 0) states.largest[lane.row] = largest;
    states.factor[lane.row] = rescale;
  }
  __syncwarp();
}

}  // namespace qf::cuda
