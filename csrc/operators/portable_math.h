// exp and log in fp32 for the fp32 definitions: IEEE operations only, none merged, so every CPU and GPU gives the same
// bits.
// nvcc: x[0] = qf::portable_exp(x[0]) + qf::portable_log(x[1]);
#pragma once

#include <cmath>

#include "base/bits.h"
#include "base/rounded.h"

namespace qf {

/// a * b + c in two roundings.
QF_HD_INLINE float mul_add(float a, float b, float c) { return add_rn(mul_rn(a, b), c); }

/// e^x for x <= 0, all that softmax and silu ask for: relative error below 2^-22; 0 below -87.
QF_HD_INLINE float portable_exp(float x) {
  if (!(x > -87.0f)) return x != x ? x : 0.0f;
  const float n = floorf(mul_add(x, 0x1.715476p+0f, 0.5f));
  // ln 2 in two parts; n times the first is exact
  const float r = add_rn(mul_add(n, -0x1.62ep-1f, x), -mul_rn(n, 0x1.0bfbe8p-15f));
  // Taylor to r^7: |r| <= 0.347, so the next term is below 2^-27
  float p = mul_add(0x1.a01a02p-13f, r, 0x1.6c16c2p-10f);
  p = mul_add(p, r, 0x1.111112p-7f);
  p = mul_add(p, r, 0x1.555556p-5f);
  p = mul_add(p, r, 0x1.555556p-3f);
  p = mul_add(p, r, 0.5f);
  p = mul_add(p, r, 1.0f);
  return mul_rn(mul_add(p, r, 1.0f), exp2_int(static_cast<int>(n)));
}

/// Natural logarithm of a normal positive number, NaN of NaN: by the series of atanh, relative error below 2^-21.
QF_HD_INLINE float portable_log(float x) {
  if (x != x) return x;
  const uint32_t offset = (float_bits(x) - 0x3F3504F3u) & 0xFF800000u;  // significand into [sqrt(1/2), sqrt(2))
  const float m = bits_float(float_bits(x) - offset);
  const float exponent = static_cast<float>(static_cast<int32_t>(offset) >> 23);
  const float t = add_rn(m, -1.0f) / add_rn(m, 1.0f), tt = mul_rn(t, t);
  float p = mul_add(0x1.745d18p-4f, tt, 0x1.c71c72p-4f);
  p = mul_add(p, tt, 0x1.24924ap-3f);
  p = mul_add(p, tt, 0x1.99999ap-3f);
  p = mul_add(p, tt, 0x1.555556p-2f);
  const float log_m = mul_rn(2.0f, mul_add(mul_rn(t, tt), p, t));
  return mul_add(exponent, 0x1.62e430p-1f, log_m);
}

}  // namespace qf
