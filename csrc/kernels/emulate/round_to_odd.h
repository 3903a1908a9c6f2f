// a + b in fp32 rounded to odd: the exact sum where it fits, else the neighbour with an odd last bit. A later rounding
// to at most 22 significant bits then equals one rounding of the exact sum.
#pragma once
// nvcc: x[0] = qf::add_to_odd(x[1], x[2]);

#include <cstdint>

#include "base/bits.h"

namespace qf {

/// No overflow in fp32; the residual of the sum must not underflow (true for products of halves and halves).
QF_HD inline float add_to_odd(float a, float b) {
  const float sum = a + b;
  const float from_b = sum - a;
  const float residual = (a - (sum - from_b)) + (b - from_b);  // exact: two-sum
  uint32_t bits = float_bits(sum);
  const bool inexact = residual != 0.0f && (bits & 0x7F800000u) != 0x7F800000u;  // false for NaN residuals of Inf
  if (inexact && residual == residual && !(bits & 1u)) {
    bits += ((float_bits(residual) ^ bits) >> 31) ? ~0u : 1u;  // one step toward the exact sum
  }
  return bits_float(bits);
}

}  // namespace qf
