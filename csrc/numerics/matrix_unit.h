// One step of a matrix unit ("tensor core"): the definition, in exact integer arithmetic.
//
// A step fuses up to L products a_k * b_k and the accumulator c. With x = s(x) * 2^e(x), e(x) the exponent of x clamped
// from below to the format's smallest normal exponent (subnormals are not renormalised):
//
//   E = max(e(a_k) + e(b_k) over the non-zero products, e(c) if c != 0, zero_exponent)
//   T = sum of trunc(term * 2^(F - E))     every term cut toward zero to F fraction bits, then an exact integer sum
//   d = rounding(T * 2^(E - F))
//
// Sources: MMA-Sim (arXiv 2511.10909), Khattak & Mikaitis (arXiv 2512.07004). What a recording confirms of it is in
// tests.
#pragma once
// nvcc: x[0] = qf::fused_dot_add({16, 25, qf::Rounding::fp32_toward_zero, -133, -14}, x, 1, x + 64, 1, 64, 0.0f);

#include <cstddef>
#include <cstdint>

#include "base/bits.h"
#include "base/half.h"

namespace qf {

enum class Rounding : uint8_t {
  fp32_toward_zero,   // 24 significant bits, gradual underflow, overflow to Inf
  e8m13_toward_zero,  // 14 significant bits in an fp32
  fp16_nearest_even,
};

struct MatrixUnit {
  int products;       // L: products fused in one step
  int fraction_bits;  // F
  Rounding rounding;
  int zero_exponent;   // the exponent that zero terms take part with
  int input_exponent;  // smallest normal exponent of the input format (fp16 -14, bf16 and tf32 -126, e4m3 -6, e5m2 -14)
};

namespace detail {

/// x = significand * 2^(exponent - 23), |significand| < 2^24; exponent clamped to `lowest`.
struct Scaled {
  int64_t significand;
  int exponent;
};

QF_HD inline Scaled scaled(float x, int lowest) {
  const uint32_t bits = float_bits(x);
  int exponent = static_cast<int>((bits >> 23) & 0xFF) - 127;
  int64_t significand = bits & 0x7FFFFFu;
  if (exponent == -127) {
    exponent = -126;
  } else {
    significand |= 0x800000;
  }
  if (exponent < lowest) {
    significand >>= lowest - exponent < 63 ? lowest - exponent : 63;  // exact for values of the format
    exponent = lowest;
  }
  return {bits >> 31 ? -significand : significand, exponent};
}

/// trunc(value * 2^-shift), toward zero.
QF_HD inline int64_t cut(int64_t value, int shift) {
  if (shift >= 63) return 0;
  return value < 0 ? -(-value >> shift) : value >> shift;
}

QF_HD inline bool is_finite(float x) { return (float_bits(x) & 0x7F800000u) != 0x7F800000u; }

/// value * 2^exponent, cut toward zero to `significant` bits (24 or 14), in fp32 with gradual underflow.
QF_HD inline float pack_toward_zero(int64_t value, int exponent, int significant) {
  if (value == 0) return 0.0f;
  const uint32_t sign = value < 0 ? 0x80000000u : 0u;
  uint64_t magnitude = static_cast<uint64_t>(value < 0 ? -value : value);
  int top = 63;
  while (!(magnitude >> top)) --top;  // magnitude in [2^top, 2^(top+1))
  int drop = top - (significant - 1);
  if (exponent + drop < -149) drop = -149 - exponent;  // below the last bit of an fp32 subnormal
  if (drop > 0) {
    if (drop > 63) return bits_float(sign);
    magnitude >>= drop;
    exponent += drop;
    if (magnitude == 0) return bits_float(sign);
    top -= drop;
  }
  const int value_exponent = top + exponent;
  if (value_exponent > 127) return bits_float(sign | 0x7F800000u);
  if (value_exponent < -126) {
    // exponent >= -149: `drop` saw to it.  NOLINTNEXTLINE(clang-analyzer-core.BitwiseShift)
    return bits_float(sign | static_cast<uint32_t>(magnitude << (exponent + 149)));
  }
  const uint64_t normal = top <= 23 ? magnitude << (23 - top) : magnitude >> (top - 23);
  return bits_float(sign | static_cast<uint32_t>(value_exponent + 127) << 23 |
                    (static_cast<uint32_t>(normal) & 0x7FFFFFu));
}

/// value * 2^exponent rounded to nearest even in fp16, returned as fp32; what rounds to zero is +0, also from below
/// (measured on an H200). One rounding: the bits that fp32 cannot hold are kept as a sticky last bit (24 >= 11 + 2
/// bits, so the second rounding sees every case apart).
QF_HD inline float pack_half(int64_t value, int exponent) {
  if (value == 0) return 0.0f;
  const bool negative = value < 0;
  uint64_t magnitude = static_cast<uint64_t>(negative ? -value : value);
  int top = 63;
  while (!(magnitude >> top)) --top;
  if (top > 23) {
    const int drop = top - 23;
    const bool sticky = (magnitude & ((uint64_t{1} << drop) - 1)) != 0;
    magnitude = (magnitude >> drop) | (sticky ? 1u : 0u);
    exponent += drop;
    top = 23;
  }
  if (top + exponent > 127) return bits_float(negative ? 0xFF800000u : 0x7F800000u);
  if (top + exponent < -60) return 0.0f;  // far below half of fp16's smallest number
  const uint64_t normal = magnitude << (23 - top);
  const uint32_t bits = static_cast<uint32_t>(top + exponent + 127) << 23 | (static_cast<uint32_t>(normal) & 0x7FFFFFu);
  const float rounded = round_to_half(bits_float(bits | (negative ? 0x80000000u : 0u)));
  return rounded == 0.0f ? 0.0f : rounded;
}

QF_HD inline float special_sum(const float* a, ptrdiff_t stride_a, const float* b, ptrdiff_t stride_b, int count,
                               float c) {
  bool nan = c != c, positive = false, negative = false;
  if (!is_finite(c) && !nan) (c > 0 ? positive : negative) = true;
  for (int k = 0; k < count; ++k) {
    const float x = a[k * stride_a], y = b[k * stride_b];
    if (is_finite(x) && is_finite(y)) continue;
    if (x != x || y != y || x == 0.0f || y == 0.0f) {
      nan = true;
    } else {
      ((x > 0) == (y > 0) ? positive : negative) = true;
    }
  }
  if (nan || (positive && negative)) return bits_float(kCanonicalNan);
  return bits_float(positive ? 0x7F800000u : 0xFF800000u);
}

}  // namespace detail

/// One step over `count` <= L products; missing products count as zero. a, b hold values of the input format; c a value
/// of the output format. Strides in elements. A NaN result is 0x7FFFFFFF (fp16 units: 0x7FFF once the writer narrows
/// it).
QF_HD inline float fused_dot_add_step(const MatrixUnit& unit, const float* a, ptrdiff_t stride_a, const float* b,
                                      ptrdiff_t stride_b, int count, float c) {
  bool finite = detail::is_finite(c);
  for (int k = 0; k < count; ++k)
    finite = finite && detail::is_finite(a[k * stride_a]) && detail::is_finite(b[k * stride_b]);
  if (!finite) return detail::special_sum(a, stride_a, b, stride_b, count, c);

  const int lowest_c = unit.rounding == Rounding::fp16_nearest_even ? -14 : -126;
  const detail::Scaled accumulator = detail::scaled(c, lowest_c);
  int largest = unit.zero_exponent;
  if (accumulator.significand != 0 && accumulator.exponent > largest) largest = accumulator.exponent;
  for (int k = 0; k < count; ++k) {
    const detail::Scaled x = detail::scaled(a[k * stride_a], unit.input_exponent);
    const detail::Scaled y = detail::scaled(b[k * stride_b], unit.input_exponent);
    if (x.significand == 0 || y.significand == 0) continue;
    if (x.exponent + y.exponent > largest) largest = x.exponent + y.exponent;
  }

  const int fraction = unit.fraction_bits;
  // a term of exponent e and p fraction bits becomes trunc(significand >> (p - F + largest - e))
  int64_t total = accumulator.significand;
  if (total != 0) {  // a zero's exponent says nothing about `largest`: the shift could be any number
    const int shift_c = 23 - fraction + largest - accumulator.exponent;
    total = shift_c < 0 ? total * (int64_t{1} << -shift_c) : detail::cut(total, shift_c);
  }
  for (int k = 0; k < count; ++k) {
    const detail::Scaled x = detail::scaled(a[k * stride_a], unit.input_exponent);
    const detail::Scaled y = detail::scaled(b[k * stride_b], unit.input_exponent);
    if (x.significand == 0 || y.significand == 0) continue;
    total += detail::cut(x.significand * y.significand, 46 - fraction + largest - x.exponent - y.exponent);
  }
  switch (unit.rounding) {
    case Rounding::fp32_toward_zero: return detail::pack_toward_zero(total, largest - fraction, 24);
    case Rounding::e8m13_toward_zero: return detail::pack_toward_zero(total, largest - fraction, 14);
    case Rounding::fp16_nearest_even: return detail::pack_half(total, largest - fraction);
  }
  return 0.0f;
}

/// Steps chained over k = 0 .. count-1, L at a time.
QF_HD inline float fused_dot_add(const MatrixUnit& unit, const float* a, ptrdiff_t stride_a, const float* b,
                                 ptrdiff_t stride_b, int64_t count, float c) {
  for (int64_t k = 0; k < count; k += unit.products) {
    const int64_t left = count - k;
    c = fused_dot_add_step(unit, a + k * stride_a, stride_a, b + k * stride_b, stride_b,
                           static_cast<int>(left < unit.products ? left : unit.products), c);
  }
  return c;
}

}  // namespace qf
