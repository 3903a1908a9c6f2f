// The sums of operators/block_reduce.h by shuffles, one value per lane. A lane without a value brings +0, which changes
// no sum of numbers that are not below +0.
#pragma once

#include "operators/block_reduce.h"

namespace qf::cuda {

constexpr unsigned kFullWarp = 0xFFFFFFFFu;

/// Offsets 1, 2, 4, ... below `width` (a power of two up to 32); valid in lane 0 of every group of `width` lanes.
__device__ __forceinline__ float warp_sum_up(float value, int width) {
  for (int offset = 1; offset < width; offset *= 2)
    value = __fadd_rn(value, __shfl_down_sync(kFullWarp, value, offset, width));
  return value;
}

/// Offsets 16, 8, 4, 2, 1; valid in lane 0.
__device__ __forceinline__ float warp_sum_down(float value) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2)
    value = __fadd_rn(value, __shfl_down_sync(kFullWarp, value, offset));
  return value;
}

/// Largest over the warp, in every lane; NaN passed over.
__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value = fmaxf(value, __shfl_xor_sync(kFullWarp, value, offset));
  return value;
}

/// Largest over a block of full warps, in every thread. `warps` holds 32 floats and is free again after the next
/// barrier.
__device__ __forceinline__ float block_max(float value, float* warps) {
  const int thread = static_cast<int>(threadIdx.x), count = static_cast<int>(blockDim.x) / kWarp;
  value = warp_max(value);
  if (thread % kWarp == 0) warps[thread / kWarp] = value;
  __syncthreads();
  const int lane = thread % kWarp;
  return warp_max(lane < count ? warps[lane] : -INFINITY);
}

}  // namespace qf::cuda
