// The loops behind vector_ops.h. Included once per instruction set by vector_ops*.cpp, which set the compiler's flags; in an
// unnamed namespace, so that no copy for a larger instruction set can be linked in place of the baseline's.
#include <cmath>
#include <limits>

#include "base/half.h"
#include "numerics/cuda_math.h"
#include "numerics/dot_chain.h"
#include "operators/vector_ops.h"

namespace qf {
namespace {

inline float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }

void widen(DType dtype, const uint16_t* in, int64_t n, float* out) {
  if (dtype == DType::bf16) {
    for (int64_t i = 0; i < n; ++i) out[i] = bf16_to_float(in[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) out[i] = half_to_float(in[i]);
  }
}

void narrow(DType dtype, const float* in, int64_t n, uint16_t* out) {
  if (dtype == DType::bf16) {
    for (int64_t i = 0; i < n; ++i) out[i] = float_to_bf16(in[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) out[i] = float_to_half(in[i]);
  }
}

void round(DType dtype, float* values, int64_t n) {
  if (dtype == DType::bf16) {
    for (int64_t i = 0; i < n; ++i) values[i] = round_to_bf16(values[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) values[i] = round_to_half(values[i]);
  }
}

float max(const float* in, int64_t n) {
  float largest = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < n; ++i) largest = in[i] > largest ? in[i] : largest;
  return largest;
}

void row_exponents(const float* values, int64_t n, int lowest, int16_t* exponent) {
  for (int64_t i = 0; i < n; ++i) exponent[i] = row_exponent(values[i], lowest);
}

void exp_parts(const SfuView& sfu, const float* in, float shift, int64_t n, float* scale, float* mantissa) {
  for (int64_t i = 0; i < n; ++i) {
    const ExpParts parts = cuda_exp_parts(sfu, in[i] - shift);
    scale[i] = parts.scale;
    mantissa[i] = parts.mantissa;
  }
}

void exp2_scaled(const SfuView& sfu, const float* in, float c, float offset, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = sfu.ex2(std::fma(flushed(in[i]), c, -offset));
}

void scale_flushed(float* values, int64_t n, float factor) {
  for (int64_t i = 0; i < n; ++i) values[i] = flushed(flushed(values[i]) * factor);
}

void rotate(const float* x, const float* y, const float* cosine, const float* sine, int64_t n, float* out_x, float* out_y) {
  for (int64_t i = 0; i < n; ++i) {
    out_x[i] = std::fma(x[i], cosine[i], -(y[i] * sine[i]));
    out_y[i] = std::fma(y[i], cosine[i], x[i] * sine[i]);
  }
}

}  // namespace
}  // namespace qf
