// vLLM's gptq_gemm: up to 50 rows a kernel of fp16 FMA chains whose blocks of 128 k meet in fp16 atomics; above, the
// weights are dequantized and cublasHgemm runs. The atomics race: every (row, 64 columns, parity of column / 2) has one
// order.
#include <algorithm>

#include "base/error.h"
#include "kernels/parts.h"
#include "kernels/table.h"

namespace qf {

Plan plan_exllama(const Problem& problem, const DeviceNumbers& device, const KernelOptions& options) {
  require_format("exllama", problem.format, {Format::fp16});
  constexpr int64_t kBlock = 128, kLargestRows = 50;
  if (problem.m > kLargestRows) {
    KernelOptions large = options;
    if (large.split == 1) large.split = 0;  // inside gptq_gemm nobody chooses it
    Plan plan = plan_hgemm(problem, device, large);
    plan.sentence = "gptq above 50 rows: dequantized to fp16, then " + plan.sentence;
    return plan;
  }
  require(problem.k % 8 == 0, "exllama: K = ", problem.k, " is no multiple of 8");
  require(problem.group % 8 == 0, "exllama: group size ", problem.group, " is no multiple of 8");
  Plan plan = begin_plan("exllama", problem, device, options);
  plan.sentence =
      "blocks of 128 k: fp16 FMA chains of 4, scaled into fp32, rounded to fp16; blocks added by fp16 atomics";
  plan.weight = WeightRule::integer;
  plan.step = StepRule::half2_chain;
  Tree tree;
  tree.leaf_narrow = Narrow::fp16;
  tree.racing = true;
  for (int64_t begin = 0; begin < problem.k; begin += kBlock) {
    tree.leaves.push_back(straight_leaf(begin, std::min(problem.k, begin + kBlock)));
  }
  plan.facts.push_back(std::to_string(tree.leaves.size()) + " blocks race" +
                       (tree.leaves.size() <= 2 ? " (not visible)" : ""));
  whole_output(plan, tree);
  // No matrix unit and no SM count takes part; nothing to note about the device.
  return plan;
}

}  // namespace qf
