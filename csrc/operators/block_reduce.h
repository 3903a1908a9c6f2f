// Sums over the threads of a GPU thread block, in the order of its shuffles.
#pragma once

#include <cstdint>

#include "base/host_device.h"

namespace qf {

inline constexpr int kWarp = 32;

/// Sum of one warp's values by shuffle-down with offsets 1, 2, 4, 8, 16; `lanes` of them take part, a lane adds only
/// what another one of those has. values[0..31] is scratch.
QF_HD_INLINE float warp_sum_ascending(float* values, int lanes) {
  for (int offset = 1; offset < kWarp; offset *= 2) {
    for (int lane = 0; lane + offset < lanes; ++lane)
      values[lane] += values[lane + offset];  // the partner is still old
  }
  return values[0];
}

/// The same with offsets 16, 8, 4, 2, 1 over all 32 lanes.
QF_HD_INLINE float warp_sum_descending(float* values) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    for (int lane = 0; lane < offset; ++lane) values[lane] += values[lane + offset];
  }
  return values[0];
}

/// CUB's block reduction: warps first, then serial over the warps. values[threads] is scratch.
QF_HD_INLINE float block_sum_cub(float* values, int threads) {
  float total = 0.0f;
  for (int first = 0; first < threads; first += kWarp) {
    const int lanes = threads - first < kWarp ? threads - first : kWarp;
    const float warp = warp_sum_ascending(values + first, lanes);
    total = first == 0 ? warp : total + warp;
  }
  return total;
}

}  // namespace qf
