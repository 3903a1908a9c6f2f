#include "kernels/emulate/emulate_gemm.h"

#include <algorithm>

#include "base/bits.h"
#include "base/error.h"
#include "kernels/emulate/dequantize.h"
#include "kernels/emulate/half_window.h"
#include "kernels/emulate/panel_job.h"

namespace qf {
namespace {

/// Rows converted at a time: bounds the memory of the fp32 copies.
constexpr int64_t kRowBlock = 512;

void check_weight(const Plan& plan, const PackedWeight& weight) {
  require(weight.n == plan.n && weight.k == plan.k, plan.kernel, ": the plan is for N = ", plan.n, ", K = ", plan.k,
          ", the weight has N = ", weight.n, ", K = ", weight.k);
  require(weight.is_dense() == (plan.weight == WeightRule::dense), plan.kernel, ": the plan wants ",
          weight_rule_text(plan.weight), ", the weight holds ", weight.is_dense() ? "numbers" : "codes");
  require(weight.is_dense() || weight.group == plan.group, plan.kernel, ": the plan is for group size ", plan.group,
          ", the weight has ", weight.group);
}

void check_call(const Plan& plan, const PackedWeight& weight, const GemmArgs& args, const ExecutorContext& context) {
  check_weight(plan, weight);
  const bool half_unit = uses_matrix_unit(plan) || plan.step == StepRule::half2_chain;
  require(!half_unit || weight.format == plan.activations, plan.kernel, ": activations are ",
          format_name(plan.activations), ", scales or weights ", format_name(weight.format));
  require(weight.is_dense() || weight.group % 2 == 0 || weight.groups() == 1, plan.kernel, ": odd group size ",
          weight.group);
  require(args.lda >= plan.k && args.ldo >= plan.n, plan.kernel, ": row strides ", args.lda, " and ", args.ldo,
          " are shorter than K = ", plan.k, " and N = ", plan.n);
  require(args.first_row >= 0 && args.first_row <= plan.m && args.row_count >= -1 &&
              args.row_count <= plan.m - args.first_row,
          plan.kernel, ": ", args.row_count, " rows from row ", args.first_row, " on, of ", plan.m);
  require((plan.epilogue.bias != BiasRule::none) == (args.bias != nullptr), plan.kernel, ": the plan has ",
          plan.epilogue.bias == BiasRule::none ? "no bias" : "a bias", ", the call ", args.bias ? "one" : "none");
  require(context.pool != nullptr, plan.kernel, ": no thread pool");
}

void run_blocks(const Plan& plan, const PackedWeight& weight, const GemmArgs& args, const ExecutorContext& context,
                float* leaves) {
  if (context.spans != nullptr) context.spans->begin(plan.weight, weight.panels());
  const int64_t groups = (weight.panels() + kGroupPanels - 1) / kGroupPanels;
  const int64_t end = args.row_count < 0 ? plan.m : args.first_row + args.row_count;
  for (int64_t begin = args.first_row; begin < end; begin += kRowBlock) {
    Activations activations(plan, std::min(kRowBlock, end - begin));
    load_activations(plan, weight, args, context, begin, activations);
    const CallState call{plan, weight, args, context, activations, leaves, begin};
    context.pool->run(groups, [&](int64_t group) { run_panel_group(call, group); });
  }
}

}  // namespace

void emulate_gemm(const Plan& plan, const PackedWeight& weight, const GemmArgs& args, const ExecutorContext& context) {
  check_call(plan, weight, args, context);
  run_blocks(plan, weight, args, context, nullptr);
}

void emulate_leaves(const Plan& plan, const PackedWeight& weight, const GemmArgs& args, const ExecutorContext& context,
                    float* leaves) {
  check_call(plan, weight, args, context);
  require(args.first_row == 0 && args.row_count < 0, plan.kernel, ": leaves are asked of all rows");
  require(plan.trees.size() == 1, plan.kernel, ": leaves are asked of a plan with ", plan.trees.size(), " trees");
  run_blocks(plan, weight, args, context, leaves);
}

void dequantize_weight(const Plan& plan, const PackedWeight& weight, const ExecutorContext& context, float* values) {
  check_weight(plan, weight);
  context.pool->run(weight.panels(), [&](int64_t panel) {
    AlignedArray<float> scratch(static_cast<size_t>(weight.k * kPanelWidth));
    dequantize(context.isa, plan.weight, weight, panel, 0, weight.k, {0, 1.0f}, scratch.get(), {});
    const int64_t columns = std::min<int64_t>(kPanelWidth, weight.n - panel * kPanelWidth);
    for (int64_t k = 0; k < weight.k; ++k) {
      const int64_t row = weight.order.empty() ? k : weight.order[static_cast<size_t>(k)];
      const float* from = scratch.get() + k * kPanelWidth;
      float* to = values + row * weight.n + panel * kPanelWidth;
      // which NaN a conversion gives depends on the instruction set
      for (int64_t c = 0; c < columns; ++c) to[c] = from[c] == from[c] ? from[c] : bits_float(kCanonicalNan);
    }
  });
}

}  // namespace qf
