// CUDA's expf, logf and powf as nvcc 13.0 compiles them (-ftz=false, no fast math): same operations, same order, same
// constants.
//
// Read off the PTX and the sm_90 code of `nvcc 13.0 -arch=sm_90`; tests/gpu/cuda_math_check.cu compares them with the
// device. Exactly the functions of CUDA 13.0: another release may change bits. sinf and cosf: cuda_trig.h. NaN results
// are 0x7FFFFFFF.
#pragma once
// nvcc: x[0] = qf::cuda_powf(sfu, qf::cuda_expf(sfu, x[1]), qf::cuda_logf(x[2]));

#include <cmath>

#include "base/rounded.h"
#include "numerics/special_function_unit.h"

namespace qf {

/// exp(x) = scale * mantissa, scale a power of two: nvcc contracts c + expf(x) to fma(scale, mantissa, c), so both are
/// needed.
struct ExpParts {
  float scale, mantissa;
};

/// Sfu, here and below: SfuView, or on a device anything with its functions.
template <class Sfu>
QF_HD_INLINE ExpParts cuda_exp_parts(const Sfu& sfu, float x) {
  float a = fmaf(x, bits_float(0x3BBB989Du), 0.5f);  // x * log2(e) / 252 + 1/2
  // fma toward minus infinity of a * 252 + (2^23 * 1.5 + 1): the whole part k, since the sum's last bit is 1
#if defined(__CUDA_ARCH__)
  const float sum = __fmaf_rd(__saturatef(a), 252.0f, 12582913.0f);  // saturation makes NaN 0
  const float minus_exponent = __fsub_rn(12583039.0f, sum);          // 126 - k
  const uint32_t scale = float_bits(sum) << 23;                      // (k + 1) << 23
#else
  a = a > 0.0f ? (a < 1.0f ? a : 1.0f) : 0.0f;  // saturate; NaN becomes 0
  const int k = static_cast<int>(static_cast<double>(a) * 252.0);
  const float minus_exponent = static_cast<float>(126 - k);
  const uint32_t scale = static_cast<uint32_t>(k + 1) << 23;
#endif
  float f = fmaf(x, bits_float(0x3FB8AA3Bu), minus_exponent);
  f = fmaf(x, bits_float(0x32A57060u), f);
  return {bits_float(scale), sfu.ex2(f)};
}

template <class Sfu>
QF_HD_INLINE float cuda_expf(const Sfu& sfu, float x) {
  const ExpParts e = cuda_exp_parts(sfu, x);
  return x != x ? bits_float(kCanonicalNan) : mul_rn(e.mantissa, e.scale);
}

/// c + expf(x) as compiled: one rounding for the multiplication by the scale and the addition.
template <class Sfu>
QF_HD_INLINE float cuda_add_exp(const Sfu& sfu, float c, float x) {
  const ExpParts e = cuda_exp_parts(sfu, x);
  const float sum = fmaf(e.mantissa, e.scale, c);
  return sum != sum ? bits_float(kCanonicalNan) : sum;
}

QF_HD_INLINE float cuda_logf(float x) {
  const bool small = x < 0x1p-126f;  // subnormal, zero or negative
  const float a = small ? x * 0x1p23f : x;
  const uint32_t bits = float_bits(a);
  if (a == 0.0f) return bits_float(0xFF800000u);
  if (bits >= 0x7F800000u) return bits_float(bits == 0x7F800000u ? bits : kCanonicalNan);
  const uint32_t e = (bits - 0x3F2AAAABu) & 0xFF800000u;  // m in [2/3, 4/3)
  const float i = fmaf(static_cast<float>(static_cast<int32_t>(e)), 0x1p-23f, small ? -23.0f : 0.0f);
  const float f = bits_float(bits - e) - 1.0f;
  float r = bits_float(0xBE055027u);
  r = fmaf(r, f, bits_float(0x3E1039F6u));
  r = fmaf(r, f, bits_float(0xBDF8CDCCu));
  r = fmaf(r, f, bits_float(0x3E0F2955u));
  r = fmaf(r, f, bits_float(0xBE2AD8B9u));
  r = fmaf(r, f, bits_float(0x3E4CED0Bu));
  r = fmaf(r, f, bits_float(0xBE7FFF22u));
  r = fmaf(r, f, bits_float(0x3EAAAA78u));
  r = fmaf(r, f, -0.5f);
  r = fmaf(mul_rn(f, r), f, f);
  return fmaf(i, bits_float(0x3F317218u), r);
}

/// rsqrtf: subnormal inputs are scaled into range (by 2^24, the result by 2^12).
template <class Sfu>
QF_HD_INLINE float cuda_rsqrtf(const Sfu& sfu, float x) {
  const bool small = (float_bits(x) & 0x7FFFFFFFu) < 0x00800000u;
  const float y = sfu.rsqrt(small ? x * 0x1p24f : x);
  return small ? y * 0x1p12f : y;
}

namespace detail {

/// log2(a) of a finite a > 0 as an unevaluated sum hi + lo.
struct Log2Parts {
  float hi, lo;
};

QF_HD inline Log2Parts pow_log2(const SfuView& sfu, float a) {
  const bool small = a < 0x1p-126f;
  const uint32_t bits = float_bits(small ? a * 0x1p24f : a);
  const uint32_t e = (bits - 0x3F3504F3u) & 0xFF800000u;
  const float m = bits_float(bits - e);
  const float i = fmaf(static_cast<float>(static_cast<int32_t>(e)), 0x1p-23f, small ? -24.0f : 0.0f);
  const float g = m - 1.0f, inverse = sfu.rcp(m + 1.0f);
  const float u = mul_rn(g + g, inverse);  // 2 (m - 1) / (m + 1)
  const float v = mul_rn(u, u);
  float t = add_rn(g, -u);
  t = fmaf(-u, g, t + t);
  const float u_low = mul_rn(inverse, t);
  float p = fmaf(bits_float(0x3A2C32E4u), v, bits_float(0x3B52E7DBu));
  p = fmaf(p, v, bits_float(0x3C93BB73u));
  p = fmaf(p, v, bits_float(0x3DF6384Fu));
  p = mul_rn(p, v);
  const float log2e = bits_float(0x3FB8AA3Bu);
  const float high = fmaf(u, log2e, i);
  float low = fmaf(u, log2e, i - high);
  low = fmaf(u_low, log2e, low);
  low = fmaf(u, bits_float(0x32A55E34u), low);
  low = fmaf(mul_rn(p, 3.0f), u_low, low);
  low = fmaf(p, u, low);
  const float hi = add_rn(high, low);
  return {hi, add_rn(low, -add_rn(hi, -high))};
}

/// 2^(hi + lo), hi's magnitude below 152 or the result is 0 or Inf.
QF_HD inline float pow_exp2(float hi, float lo) {
  if (fabsf(hi) > 152.0f) return hi < 0.0f ? 0.0f : bits_float(0x7F800000u);
  const float whole = nearbyintf(hi);
  const float f = add_rn(lo, add_rn(hi, -whole));
  float r = fmaf(bits_float(0x391FCB8Eu), f, bits_float(0x3AAF85EDu));
  r = fmaf(r, f, bits_float(0x3C1D9856u));
  r = fmaf(r, f, bits_float(0x3D6357BBu));
  r = fmaf(r, f, bits_float(0x3E75FDECu));
  r = fmaf(r, f, bits_float(0x3F317218u));
  r = fmaf(r, f, 1.0f);
  const uint32_t half =
      whole > 0.0f ? 0u : 0x83000000u;  // the scale in two steps, so that subnormal results round once
  r = mul_rn(r, bits_float(half + 0x7F000000u));
  return mul_rn(r, bits_float((static_cast<uint32_t>(static_cast<int32_t>(whole)) << 23) - half));
}

}  // namespace detail

QF_HD inline float cuda_powf(const SfuView& sfu, float x, float y) {
  const uint32_t magnitude_x = float_bits(x) & 0x7FFFFFFFu, magnitude_y = float_bits(y) & 0x7FFFFFFFu;
  if (x == 1.0f || y == 0.0f) return 1.0f;
  if (magnitude_x > 0x7F800000u || magnitude_y > 0x7F800000u) return bits_float(kCanonicalNan);
  const bool odd = fabsf(y - 2.0f * truncf(y * 0.5f)) == 1.0f;
  if (magnitude_x == 0 || magnitude_x == 0x7F800000u) {
    uint32_t bits = float_bits(x + x);
    if (y < 0.0f) bits ^= 0x7F800000u;
    return bits_float(odd ? bits : bits & 0x7FFFFFFFu);
  }
  if (magnitude_y == 0x7F800000u && x == -1.0f) return 1.0f;
  const detail::Log2Parts l = detail::pow_log2(sfu, bits_float(magnitude_x));
  const float product = mul_rn(l.hi, y);
  const float low = fmaf(l.lo, y, fmaf(l.hi, y, -product));
  const float result = detail::pow_exp2(product, low);
  if (x >= 0.0f) return result;
  if (floorf(y) != y) return bits_float(kCanonicalNan);
  return odd ? -result : result;
}

}  // namespace qf
