// fp16 (IEEE 754 binary16) and bf16 (the upper half of binary32): conversion to and from fp32, round to nearest even.
// Integer code only, so that host and device agree by construction.
//
// NaN is what an H200 makes of it (tests/data/vectors/specials.txt): a conversion that rounds, and fp16 -> fp32, give
// the one canonical NaN of the result's format, 0x7FFF or 0x7FFFFFFF, whatever sign and payload came in; bf16 -> fp32
// only moves bits and keeps them.
#pragma once
// nvcc: x[0] = qf::round_to_half(x[1]) + qf::round_to_bf16(x[2]);

#include "base/bits.h"

namespace qf {

inline constexpr uint16_t kCanonicalNan16 = 0x7FFFu;  // of fp16 and of bf16

QF_HD_INLINE float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t magnitude = half & 0x7FFFu;
  if (magnitude >= 0x7C00u) return bits_float(magnitude == 0x7C00u ? sign | 0x7F800000u : kCanonicalNan);
  if (magnitude >= 0x0400u) return bits_float(sign | ((magnitude + (112u << 10)) << 13));
  // subnormal: magnitude * 2^-24, exact in fp32
  return bits_float(sign | float_bits(static_cast<float>(magnitude) * 0x1p-24f));
}

QF_HD_INLINE uint16_t float_to_half(float value) {
  const uint32_t bits = float_bits(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return kCanonicalNan16;
  if (magnitude >= 0x477FF000u) return static_cast<uint16_t>(sign | 0x7C00u);  // >= 65520 rounds to Inf
  if (magnitude < 0x38800000u) {                                               // below 2^-14: subnormal or zero
    if (magnitude < 0x33000000u) return sign;                                  // below 2^-25
    const int shift = 126 - static_cast<int>(magnitude >> 23);                 // units of 2^-24
    const uint32_t significand = (magnitude & 0x7FFFFFu) | 0x800000u;
    const uint32_t kept = significand >> shift;
    const uint32_t rest = significand & ((1u << shift) - 1u);
    const uint32_t tie = 1u << (shift - 1);
    return static_cast<uint16_t>(sign | (kept + (rest > tie || (rest == tie && (kept & 1u)))));
  }
  const uint32_t rounded = magnitude + 0xFFFu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded >> 13) - (112u << 10)));
}

QF_HD_INLINE float bf16_to_float(uint16_t bf16) { return bits_float(static_cast<uint32_t>(bf16) << 16); }

QF_HD_INLINE uint16_t float_to_bf16(float value) {
  const uint32_t bits = float_bits(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return kCanonicalNan16;
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

/// fp32 -> fp16 -> fp32, one rounding.
QF_HD_INLINE float round_to_half(float value) { return half_to_float(float_to_half(value)); }
/// fp32 -> bf16 -> fp32, one rounding.
QF_HD_INLINE float round_to_bf16(float value) { return bf16_to_float(float_to_bf16(value)); }

}  // namespace qf
