// Ours, for Marlin's weights: one partition of K for every M, so that a row's bits do not depend on the rows beside it.
// Marlin's order inside a block (warp rows of a k-tile), without its stripes over the SMs: one slice is all of K.
#include "base/error.h"
#include "kernels/parts.h"
#include "kernels/striped_tree.h"
#include "kernels/table.h"

namespace qf {

Plan plan_marlin_invariant(const Problem& problem, const DeviceNumbers& device, const KernelOptions& options) {
  require_format("marlin_invariant", problem.format, {Format::fp16, Format::bf16});
  require(problem.group == problem.k || problem.group == 32 || problem.group == 64 || problem.group == 128,
          "marlin_invariant: group size must be -1, 32, 64 or 128, got ", problem.group);
  require(problem.n % 64 == 0 && problem.k % 64 == 0, "marlin_invariant: N = ", problem.n, " and K = ", problem.k,
          " must be multiples of 64");
  Plan plan = begin_plan("marlin_invariant", problem, device, options);
  plan.sentence = "one order for every M: warp rows over all of K, added once";
  plan.unconfirmed = {"no engine runs it: this order is named by us"};
  if (problem.group == problem.k) {
    plan.weight = WeightRule::integer;
    plan.epilogue.channel_scale = true;
    if (options.bias) plan.epilogue.bias = BiasRule::fused_scale;
  }
  const int64_t tile_k = problem.k % 128 == 0 ? 128 : 64;
  whole_output(plan, striped_tree({0, problem.k / tile_k}, tile_k, Narrow::none));
  plan.facts.push_back("tile k" + std::to_string(tile_k) + ", " + std::to_string(problem.k / tile_k) +
                       " k-tiles in one slice, whatever the number of rows or SMs");
  return plan;
}

}  // namespace qf
