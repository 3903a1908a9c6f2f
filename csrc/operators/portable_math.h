// exp and log in fp32 for the fp32 definitions: IEEE operations only, so every CPU and GPU gives the same bits.
#pragma once

#include <cmath>

#include "base/bits.h"

namespace qf {

/// e^x for x <= 0 (all that softmax and silu ask for; 1 above), relative error below 2^-22; 0 below -87.
QF_HD inline float portable_exp(float x) {
  if (!(x > -87.0f)) return x != x ? x : 0.0f;
  const float n = floorf(x * 0x1.715476p+0f + 0.5f);
  const float r = (x - n * 0x1.62ep-1f) - n * 0x1.0bfbe8p-15f;  // ln 2 in two parts; n * the first is exact
  // Taylor to r^7: |r| <= 0.347, so the next term is below 2^-27
  float p = 0x1.a01a02p-13f;
  p = p * r + 0x1.6c16c2p-10f;
  p = p * r + 0x1.111112p-7f;
  p = p * r + 0x1.555556p-5f;
  p = p * r + 0x1.555556p-3f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  return (p * r + 1.0f) * exp2_int(static_cast<int>(n));
}

/// Natural logarithm of a normal positive number: by the series of atanh, relative error below 2^-21.
QF_HD inline float portable_log(float x) {
  const uint32_t offset = (float_bits(x) - 0x3F3504F3u) & 0xFF800000u;  // significand into [sqrt(1/2), sqrt(2))
  const float m = bits_float(float_bits(x) - offset);
  const float exponent = static_cast<float>(static_cast<int32_t>(offset) >> 23);
  const float t = (m - 1.0f) / (m + 1.0f), tt = t * t;
  float p = 0x1.745d18p-4f;
  p = p * tt + 0x1.c71c72p-4f;
  p = p * tt + 0x1.24924ap-3f;
  p = p * tt + 0x1.99999ap-3f;
  p = p * tt + 0x1.555556p-2f;
  return exponent * 0x1.62e430p-1f + (2.0f * t + 2.0f * t * tt * p);
}

}  // namespace qf
