// From leaves to outputs: the combine tree or the race, then the epilogue, one row of up to 64 columns at a time.
#pragma once

#include "kernels/gemm.h"

namespace qf {

/// Leaves of one row: leaf(i) = base + i * stride, `columns` floats each, already narrowed.
struct LeafRow {
  const float* base;
  int64_t stride;
  int64_t columns;
};

/// The tree's ordered adds. `scratch` holds adds x columns floats. Returns the root's row.
const float* combine_row(Isa isa, const Tree& tree, const LeafRow& leaves, float* scratch);

/// Racing adds in the orders of race_order.h (deterministic: ascending) for (row, column / 64, parity). `scratch` holds
/// 2 x columns floats.
const float* race_row(Isa isa, const Tree& tree, const LeafRow& leaves, const ExecutorContext& context, int64_t row,
                      int64_t column, float* scratch);

/// Scale, bias and final rounding of `columns` columns from `column` on; writes the output row.
struct EpilogueArgs {
  const Epilogue* rule;
  const float* channel_scale;  // [columns], where the rule scales
  const float* bias;           // [columns], where there is one
};
void finish_row(Isa isa, const EpilogueArgs& args, const float* root, int64_t columns, void* out, float* scratch);

}  // namespace qf
