// Elementwise loops that operators share, once per instruction set, the same bits from each. Arrays do not overlap unless
// said; n is any length.
#pragma once

#include <cstdint>

#include "operators/context.h"

namespace qf {

struct VectorOps {
  /// fp16 or bf16 -> fp32, exact.
  void (*widen)(DType dtype, const uint16_t* in, int64_t n, float* out);
  /// fp32 -> fp16 or bf16, to nearest even.
  void (*narrow)(DType dtype, const float* in, int64_t n, uint16_t* out);
  /// values[i] = the nearest fp16 or bf16 number, kept as fp32 (in place).
  void (*round)(DType dtype, float* values, int64_t n);
  /// Largest element; -inf for none. NaN elements are passed over.
  float (*max)(const float* in, int64_t n);
  /// exponent[i] = row_exponent(values[i], lowest), see numerics/dot_chain.h.
  void (*row_exponents)(const float* values, int64_t n, int lowest, int16_t* exponent);

  /// CUDA's expf in the form that a following addition sees: exp(in[i] - shift) = scale[i] * mantissa[i].
  void (*exp_parts)(const SfuView& sfu, const float* in, float shift, int64_t n, float* scale, float* mantissa);
  /// out[i] = ex2(fma(in[i], c, -offset)), subnormals flushed: the numerators of attention's softmax.
  void (*exp2_scaled)(const SfuView& sfu, const float* in, float c, float offset, int64_t n, float* out);
  /// out[i] *= factor, subnormals flushed before and after.
  void (*scale_flushed)(float* values, int64_t n, float factor);
  /// out[i] = out[i] rotated: RN(fma(x, cos, -(y * sin))), RN(fma(y, cos, x * sin)) over one head's halves.
  void (*rotate)(const float* x, const float* y, const float* cosine, const float* sine, int64_t n, float* out_x, float* out_y);
};

const VectorOps& vector_ops(Isa isa);

}  // namespace qf
