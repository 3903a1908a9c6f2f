// CUDA's sinf and cosf as nvcc 13.0 compiles them (-ftz=false, no fast math), over all inputs. See cuda_math.h.
#pragma once
// nvcc: x[0] = qf::cuda_sinf(x[1]) + qf::cuda_cosf(x[2]);

#include <cmath>

#include "base/rounded.h"
#include "numerics/special_function_unit.h"

namespace qf {
namespace detail {

/// x = quarter * pi/2 + rest (quarter modulo 2^32).
struct QuarterTurns {
  int32_t quarter;
  float rest;
};

/// |x| >= 105615: x times 192 bits of 2/pi in integers (Payne and Hanek), then 62 bits of the fraction times pi/2.
QF_HD inline QuarterTurns reduce_large(float x) {
  // 2/pi = 0.A2F9836E 4E441529 FC2757D1 F534DDC0 DB629599 3C439041... in hexadecimal, lowest word first
  const uint32_t two_over_pi[6] = {0x3C439041u, 0xDB629599u, 0xF534DDC0u, 0xFC2757D1u, 0x4E441529u, 0xA2F9836Eu};
  const uint32_t bits = float_bits(x), significand = (bits << 8) | 0x80000000u;
  const uint32_t exponent = ((bits >> 23) & 0xFFu) - 128u;
  uint32_t product[7];
  uint64_t carry = 0;
  for (int word = 0; word < 6; ++word) {
    carry += static_cast<uint64_t>(two_over_pi[word]) * significand;
    product[word] = static_cast<uint32_t>(carry);
    carry >>= 32;
  }
  product[6] = static_cast<uint32_t>(carry);
  const uint32_t whole = exponent >> 5, part = exponent & 31u;  // drop whole turns: the words above, then `part` bits
  uint32_t high = product[6 - whole], low = product[5 - whole];
  if (part != 0) {
    high = (high << part) | (low >> (32 - part));
    low = (low << part) | (product[4 - whole] >> (32 - part));
  }
  uint64_t fraction =
      (static_cast<uint64_t>(high) << 34) | (static_cast<uint64_t>(low) << 2);  // of a quarter turn, 64 bits
  const uint32_t up = static_cast<uint32_t>(fraction >> 63);                    // nearest quarter is the next
  const int32_t quarter = static_cast<int32_t>((high >> 30) + up);
  bool negative = (bits >> 31) != 0;
  const int32_t signed_quarter = negative ? -quarter : quarter;
  if (up) {
    fraction = ~fraction;
    negative = !negative;
  }
  const double rest = static_cast<double>(static_cast<int64_t>(fraction)) * 0x1.921fb54442d19p-64;  // pi/2 * 2^-64
  const float narrow = static_cast<float>(rest);
  return {signed_quarter, negative ? -narrow : narrow};
}

QF_HD_INLINE QuarterTurns reduce_quarter_turns(float x) {
  const float magnitude = fabsf(x);
  if (magnitude >= 105615.0f) return reduce_large(x);
  const int32_t quarter = static_cast<int32_t>(nearbyintf(mul_rn(x, bits_float(0x3F22F983u))));
  const float whole = static_cast<float>(quarter);  // through an integer: never -0, which would lose the sign of x = -0
  float rest = fmaf(whole, bits_float(0xBFC90FDAu), x);
  rest = fmaf(whole, bits_float(0xB3A22168u), rest);
  rest = fmaf(whole, bits_float(0xA7C234C5u), rest);
  return {quarter, rest};
}

/// sin of the angle, from its quarter and rest: a sine or a cosine polynomial, with a sign.
QF_HD_INLINE float sine_of_quarters(int32_t quarter, float rest) {
  const bool cosine = (quarter & 1) != 0;
  const float s = mul_rn(rest, rest), scale = cosine ? 1.0f : rest;
  float p = cosine ? fmaf(bits_float(0x37CBAC00u), s, bits_float(0xBAB607EDu)) : bits_float(0xB94D4153u);
  p = fmaf(p, s, bits_float(cosine ? 0x3D2AAABBu : 0x3C0885E4u));
  p = fmaf(p, s, bits_float(cosine ? 0xBEFFFFFFu : 0xBE2AAAA8u));
  const float result = fmaf(p, fmaf(s, scale, 0.0f), scale);
  return (quarter & 2) != 0 ? fmaf(result, -1.0f, 0.0f) : result;
}

}  // namespace detail

QF_HD inline float cuda_sinf(float x) {
  if (!(fabsf(x) < bits_float(0x7F800000u))) return bits_float(kCanonicalNan);
  const detail::QuarterTurns turns = detail::reduce_quarter_turns(x);
  return detail::sine_of_quarters(turns.quarter, turns.rest);
}

QF_HD inline float cuda_cosf(float x) {
  if (!(fabsf(x) < bits_float(0x7F800000u))) return bits_float(kCanonicalNan);
  const detail::QuarterTurns turns = detail::reduce_quarter_turns(x);
  return detail::sine_of_quarters(turns.quarter + 1, turns.rest);
}

}  // namespace qf
