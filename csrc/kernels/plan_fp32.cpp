// The quiet instrument: the dequantized weights of the fp16 or bf16 kernels, multiplied in fp32, one FMA chain over K.
#include "kernels/parts.h"
#include "kernels/table.h"

namespace qf {

Plan plan_fp32(const Problem& problem, const DeviceNumbers& device, const KernelOptions& options) {
  Plan plan = begin_plan("fp32", problem, device, options);
  plan.sentence = "weights dequantized as usual, then one fp32 FMA chain over K";
  plan.step = StepRule::float_fma;
  plan.unconfirmed.clear();  // ours by definition: nothing to confirm
  if (options.bias) plan.epilogue.bias = BiasRule::before_rounding;
  if (options.offsets) plan.weight = problem.format == Format::bf16 ? WeightRule::bf16_offset : WeightRule::real;
  whole_output(plan, single_walk(problem.k));
  return plan;
}

}  // namespace qf
