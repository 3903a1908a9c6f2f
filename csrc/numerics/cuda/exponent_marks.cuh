// Exponents of a step's inputs as s16, so that one instruction adds and compares two: plain numbers, except that a zero
// lies below and Inf and NaN above every sum that a step can mean.
#pragma once

#include "base/bits.h"

namespace qf::cuda {

constexpr int kZeroMark = -8000, kSpecialMark = 12000;

/// Exponent of x, not below the format's smallest normal one.
__device__ __forceinline__ int16_t marked_exponent(float x, int lowest) {
  const uint32_t magnitude = float_bits(x) & 0x7FFFFFFFu;
  if (magnitude == 0) return kZeroMark;
  if (magnitude >= 0x7F800000u) return kSpecialMark;
  const int exponent = static_cast<int>(magnitude >> 23) - 127;
  return static_cast<int16_t>(exponent < lowest ? lowest : exponent);
}

}  // namespace qf::cuda
