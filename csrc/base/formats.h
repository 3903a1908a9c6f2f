// The narrow formats of matrix units beside fp16 and bf16 (half.h): tf32, e4m3, e5m2. Decode to fp32 is exact;
// encode rounds to nearest even. Integer code only.
//
// e4m3 and e5m2: OCP 8-bit floating point specification 1.0 (e4m3 has no Inf, and one NaN per sign: S.1111.111).
// Overflow: e5m2 to Inf, e4m3 to NaN (the specification's non-saturating mode). tf32: the upper 19 bits of an fp32. NaN
// as in half.h: 0x7F in e4m3 and in e5m2, whatever its sign, and 0x7FFFFFFF back (a GPU decodes through fp16).
#pragma once
// nvcc: u[0] = qf::float_to_e4m3(x[1]) + qf::float_to_e5m2(x[2]);

#include "base/half.h"

namespace qf {

namespace detail {

/// |x| (bits of a finite fp32) as a code of a format with `mantissa` bits and the given bias, with no upper limit:
/// overflow shows as a code above the format's largest.
QF_HD_INLINE uint32_t encode_magnitude(uint32_t magnitude, int mantissa, int bias) {
  const int exponent = static_cast<int>(magnitude >> 23) - 127;
  if (exponent < -60) return 0;  // fp32 subnormals too: far below every format here
  const int lowest = 1 - bias;
  const uint32_t significand = (magnitude & 0x7FFFFFu) | 0x800000u;
  const int shift = 23 - mantissa + (exponent < lowest ? lowest - exponent : 0);
  if (shift > 24) return 0;  // below half of the smallest number
  const uint32_t kept = significand >> shift, rest = significand & ((1u << shift) - 1u), tie = 1u << (shift - 1);
  const uint32_t rounded = kept + (rest > tie || (rest == tie && (kept & 1u)) ? 1u : 0u);
  // the significand's leading bit adds one to the exponent field of a normal number, and a carry of the rounding
  // another
  const uint32_t field = exponent < lowest ? 0u : static_cast<uint32_t>(exponent - lowest);
  return (field << mantissa) + rounded;
}

/// Inverse for finite codes without sign.
QF_HD_INLINE float decode_magnitude(uint32_t code, int mantissa, int bias) {
  const uint32_t field = code >> mantissa, fraction = code & ((1u << mantissa) - 1u);
  if (field == 0) return static_cast<float>(fraction) * exp2_int(1 - bias - mantissa);  // exact
  return bits_float(((field + 127u - static_cast<uint32_t>(bias)) << 23) | (fraction << (23 - mantissa)));
}

QF_HD_INLINE float with_sign(float magnitude, uint32_t negative) {
  return bits_float(float_bits(magnitude) | (negative ? 0x80000000u : 0u));
}

}  // namespace detail

QF_HD_INLINE float e4m3_to_float(uint8_t code) {
  const uint32_t magnitude = code & 0x7Fu;
  if (magnitude == 0x7Fu) return bits_float(kCanonicalNan);
  return detail::with_sign(detail::decode_magnitude(magnitude, 3, 7), code & 0x80u);
}

QF_HD_INLINE uint8_t float_to_e4m3(float value) {
  const uint32_t bits = float_bits(value), sign = (bits >> 24) & 0x80u, magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return 0x7Fu;
  const uint32_t code = magnitude == 0x7F800000u ? 0x7Fu : detail::encode_magnitude(magnitude, 3, 7);
  return static_cast<uint8_t>(sign | (code > 0x7Eu ? 0x7Fu : code));
}

QF_HD_INLINE float e5m2_to_float(uint8_t code) {
  return half_to_float(static_cast<uint16_t>(code << 8));  // the upper byte of an fp16
}

QF_HD_INLINE uint8_t float_to_e5m2(float value) {
  const uint32_t bits = float_bits(value), sign = (bits >> 24) & 0x80u, magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return 0x7Fu;
  const uint32_t code = magnitude == 0x7F800000u ? 0x7Cu : detail::encode_magnitude(magnitude, 2, 15);
  return static_cast<uint8_t>(sign | (code > 0x7Cu ? 0x7Cu : code));
}

/// What a matrix unit makes of an fp32 register read as tf32: the low 13 bits are dropped.
QF_HD_INLINE float truncate_to_tf32(float value) { return bits_float(float_bits(value) & 0xFFFFE000u); }

/// Nearest even; NaN keeps its upper bits and becomes quiet.
QF_HD_INLINE float round_to_tf32(float value) {
  const uint32_t bits = float_bits(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return bits_float((bits & 0xFFFFE000u) | 0x400000u);
  return bits_float((bits + 0xFFFu + ((bits >> 13) & 1u)) & 0xFFFFE000u);
}

}  // namespace qf
