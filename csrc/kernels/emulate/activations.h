// The activations of a block of rows, converted once per call.
#pragma once

#include "kernels/emulate/aligned_array.h"
#include "kernels/gemm.h"
#include "kernels/pack/packed_weight.h"

namespace qf {

struct Activations {
  Activations(const Plan& plan, int64_t rows);

  int64_t rows, ld;
  AlignedArray<float> value;      // [rows][ld], zero from K on; int8 numbers under StepRule::int32
  AlignedArray<uint32_t> cell;    // [rows][ld], for matrix units only
  AlignedArray<float> row_scale;  // [rows][k / activation_group], for StepRule::int32 only
  int64_t row_scale_ld;
};

/// Rows [begin, begin + activations.rows) of the call.
void load_activations(const Plan& plan, const PackedWeight& weight, const GemmArgs& args,
                      const ExecutorContext& context, int64_t begin, Activations& activations);

inline bool uses_matrix_unit(const Plan& plan) {
  return plan.step == StepRule::matrix_unit || plan.step == StepRule::matrix_unit_fresh;
}

}  // namespace qf
