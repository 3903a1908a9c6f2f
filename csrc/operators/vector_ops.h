// Elementwise loops that operators share, once per instruction set, the same bits from each. Arrays do not overlap
// unless said; n is any length.
#pragma once

#include <cstdint>

#include "operators/context.h"

namespace qf {

struct VectorOps {
  /// fp16 or bf16 -> fp32, exact.
  void (*widen)(DType dtype, const uint16_t* in, int64_t n, float* out);
  /// fp32 -> fp16 or bf16, to nearest even; NaN becomes 0x7FFF.
  void (*narrow)(DType dtype, const float* in, int64_t n, uint16_t* out);
  /// values[i] = the nearest fp16 or bf16 number, kept as fp32 (in place).
  void (*round)(DType dtype, float* values, int64_t n);
  /// Largest element; -inf for none. NaN elements are passed over.
  float (*max)(const float* in, int64_t n);
  /// cells[i] = row_cell(values[i], lowest), see numerics/dot_chain.h.
  void (*row_cells)(const float* values, int64_t n, int lowest, uint32_t* cells);

  /// CUDA's expf in the form that a following addition sees: exp(in[i] - shift) = scale[i] * mantissa[i].
  /// scale may be in.
  void (*exp_parts)(const SfuView& sfu, const float* in, float shift, int64_t n, float* scale, float* mantissa);
  /// out[i] = ex2(fma(in[i], c, -offset)), subnormals flushed: the numerators of attention's softmax.
  void (*exp2_scaled)(const SfuView& sfu, const float* in, float c, float offset, int64_t n, float* out);
  /// values[i] *= factor, subnormals flushed before and after.
  void (*scale_flushed)(float* values, int64_t n, float factor);
  /// One head's halves turned: RN(fma(x, cos, -(y * sin))) and RN(fma(y, cos, x * sin)).
  void (*rotate)(const float* x, const float* y, const float* cosine, const float* sine, int64_t n, float* out_x,
                 float* out_y);
  /// gate[i] = gate[i] / fma(scale[i], mantissa[i], 1).
  void (*divide_by_one_plus)(float* gate, const float* scale, const float* mantissa, int64_t n);

  /// A thread's sum goes on with fma(scale, mantissa, sum) over its vectors: t, t + threads, ... of n elements.
  void (*thread_exp_sums)(const float* scale, const float* mantissa, int64_t n, int64_t vector, int threads,
                          float* sums);
  /// A thread's chain of fma(x, x, sum) over its vectors of `length`: t, t + threads, ...
  void (*thread_square_sums)(const float* x, int64_t length, int64_t vectors, int threads, float* sums);
  /// The same with pairs, per vector of 8: p_j = fma(x_2j, x_2j, x_2j+1 * x_2j+1), sum = (((p0 + p1) + p2) + p3) + sum.
  void (*thread_pair_sums)(const float* x, int64_t vectors, int threads, float* sums);
  /// One block of probabilities added to the four sums of a quad: thread t owns columns j with (j mod 8) / 2 == t and
  /// adds them ascending. In the first block it starts from its first column, later from fma(rescale, sum, first
  /// column). n % 8 == 0.
  void (*quad_sums)(const float* p, int64_t n, bool first_block, float rescale, float* sums);
};

const VectorOps& vector_ops(Isa isa);

/// Per instruction set; the larger ones only run where the machine has them.
extern const VectorOps kVectorOpsPortable, kVectorOpsAvx2, kVectorOpsAvx512;

}  // namespace qf
