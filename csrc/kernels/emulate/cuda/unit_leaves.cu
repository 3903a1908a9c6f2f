#include "kernels/emulate/cuda/unit_leaves.h"

#include "kernels/emulate/cuda/leaf_kernels.h"

namespace qf::cuda {

TileShape unit_tile(int64_t rows) {
  if (rows <= OneRow::rows) return {OneRow::rows, OneRow::columns};
  if (rows <= FewRows::rows) return {FewRows::rows, FewRows::columns};
  return {ManyRows::rows, ManyRows::columns};
}

void run_unit_leaves(const LeafCall& call, Scheme scheme, const UnitOperand& weight, const UnitOperand& activations) {
  const Plan& plan = call.plan->plan();
  const UnitLeaves leaves{
      .args = {leaf_tables(*call.plan, *call.pass, call.partials),
               plan.unit,
               {weight.value.data(), weight.exponent.data(), weight.rows, weight.ld},
               {activations.value.data(), activations.exponent.data(), activations.rows, activations.ld},
               static_cast<int>(call.first_row)},
      .bf16 = plan.activations == Format::bf16,
      .half_output = plan.unit.rounding == Rounding::fp16_nearest_even,
      .fresh = plan.step == StepRule::matrix_unit_fresh,
      .blocks = call.pass->blocks,
      .stream = call.stream};
  switch (scheme) {
    case Scheme::native: return launch_native_leaves(leaves);
    case Scheme::pinned: return launch_pinned_leaves(leaves);
    case Scheme::fp64: return launch_fp64_leaves(leaves);
    case Scheme::converted: return launch_converted_leaves(leaves);
    case Scheme::definition: return launch_definition_leaves(leaves);
  }
}

}  // namespace qf::cuda
