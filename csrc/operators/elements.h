// What operators do to one element, or to a few: host and device, each rounding by name.
// nvcc: x[0] = qf::silu_from_exp(x[0], x[1], x[2]) + qf::square_eight(x) + qf::rotate_first(x[0], x[1], x[2], x[3]);
#pragma once

#include <cmath>

#include "base/bits.h"
#include "base/rounded.h"

namespace qf {

/// fp32 value with a subnormal replaced by the zero of its sign (.ftz).
QF_HD_INLINE float flush_subnormal(float x) {
  return (float_bits(x) & 0x7F800000u) == 0 ? bits_float(float_bits(x) & 0x80000000u) : x;
}

/// Every NaN as the one that GPUs give: what a CPU makes depends on its operands' bits and on the compiler.
QF_HD_INLINE float one_nan(float x) { return x != x ? bits_float(kCanonicalNan) : x; }

/// First and second element of a rotated pair (vLLM's kernel as compiled: one product rounded, the other fused).
QF_HD_INLINE float rotate_first(float x, float y, float cosine, float sine) {
  return fmaf(x, cosine, -mul_rn(y, sine));
}
QF_HD_INLINE float rotate_second(float x, float y, float cosine, float sine) {
  return fmaf(y, cosine, mul_rn(x, sine));
}

/// x^2 + y^2, y's square rounded by itself.
QF_HD_INLINE float square_pair(float x, float y) { return fmaf(x, x, mul_rn(y, y)); }

/// Squares of a vector of 8 as fused_add_rms_norm adds them.
QF_HD_INLINE float square_eight(const float* v) {
  const float first = add_rn(square_pair(v[0], v[1]), square_pair(v[2], v[3]));
  return add_rn(add_rn(first, square_pair(v[4], v[5])), square_pair(v[6], v[7]));
}

/// gate / (1 + exp(-gate)), the exponential as scale * mantissa; IEEE division.
QF_HD_INLINE float silu_from_exp(float gate, float scale, float mantissa) {
#if defined(__CUDA_ARCH__)
  return __fdiv_rn(gate, fmaf(scale, mantissa, 1.0f));
#else
  return gate / fmaf(scale, mantissa, 1.0f);
#endif
}

/// Sum of a quad's four threads by butterfly (xor 2, then 1).
QF_HD_INLINE float quad_total(const float* sums) { return add_rn(add_rn(sums[0], sums[2]), add_rn(sums[1], sums[3])); }

}  // namespace qf
