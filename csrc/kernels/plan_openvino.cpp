// OpenVINO on a CPU with inference precision f32: weights (q - z) * s are not rounded, activations stay fp32. The order
// of its additions is not known; ours is named: k ascending, one fp32 FMA chain. With activation_group = 32 (its
// default on recent CPUs) activations are first quantized to int8 in groups: scale = absmax / 127, q = RNE(x / scale),
// exact integer sums per group.
#include "base/error.h"
#include "kernels/parts.h"
#include "kernels/table.h"

namespace qf {

Plan plan_openvino(const Problem& problem, const DeviceNumbers& device, const KernelOptions& options) {
  Plan plan = begin_plan("openvino", problem, device, options);
  plan.unconfirmed.clear();
  if (options.bias) plan.epilogue.bias = BiasRule::before_rounding;
  plan.unconfirmed.push_back("order of additions: named by us, k ascending; the runtime's was not recorded");
  plan.weight = WeightRule::real;
  plan.step = StepRule::float_fma;
  plan.sentence = "weights (q - z) * s not rounded, one fp32 FMA chain over K";
  if (options.activation_group != 0) {
    // sums of int8 x (0 .. 15 less a zero point) are kept in fp32
    constexpr int kLongest = (1 << 24) / (127 * 15);
    require(options.activation_group <= kLongest, "openvino: activation_group ", options.activation_group,
            ": sums stay exact up to ", kLongest);
    require(options.activation_group > 0 && problem.group % options.activation_group == 0,
            "openvino: activation_group ", options.activation_group, " does not divide the group size ", problem.group);
    plan.weight = WeightRule::integer;
    plan.step = StepRule::int32;
    plan.activation_group = options.activation_group;
    plan.sentence = "int8 activations in groups of " + std::to_string(options.activation_group) +
                    ", exact integer sums, scaled and added in fp32";
  }
  whole_output(plan, single_walk(problem.k));
  return plan;
}

}  // namespace qf
