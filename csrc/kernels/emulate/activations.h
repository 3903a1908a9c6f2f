// The activations of a block of rows, converted once per call.
#pragma once

#include <memory>

#include "kernels/emulate/aligned_array.h"
#include "kernels/gemm.h"
#include "kernels/pack/packed_weight.h"

namespace qf {

struct Activations {
  Activations(const Plan& plan, int64_t rows);

  int64_t rows, ld;
  AlignedArray<float> value;    // [rows][ld], zero from K on; int8 numbers under StepRule::int32
  AlignedArray<uint32_t> cell;  // [rows][ld], for matrix units only
  /// bf16 numbers that half_window.h could bring into fp16's range: the power of two that `value` holds, and their
  /// cells there (`cell` goes with `value` all the same).
  int shift = 0;
  std::unique_ptr<AlignedArray<uint32_t>> half_cell;
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
