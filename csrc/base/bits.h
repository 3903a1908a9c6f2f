// Reinterpreting bits, on the host and on a device.
#pragma once
// nvcc: x[0] = qf::exp2_int(static_cast<int>(qf::float_bits(x[1])));

#include <cstdint>
#include <cstring>

#include "base/host_device.h"

namespace qf {

/// The NaN that a GPU's fp32 arithmetic gives, whatever NaN came in.
inline constexpr uint32_t kCanonicalNan = 0x7FFFFFFFu;

QF_HD_INLINE uint32_t float_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

QF_HD_INLINE float bits_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/// 2^exponent for exponents of normal fp32 numbers (-126 .. 127).
QF_HD_INLINE float exp2_int(int exponent) { return bits_float(static_cast<uint32_t>(exponent + 127) << 23); }

}  // namespace qf
