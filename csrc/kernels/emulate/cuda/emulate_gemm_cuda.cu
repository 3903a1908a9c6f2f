#include "kernels/emulate/cuda/emulate_gemm_cuda.h"

#include "base/error.h"
#include "kernels/emulate/cuda/combine.h"
#include "kernels/emulate/cuda/leaf_kernels.h"
#include "kernels/parts.h"

namespace qf::cuda {
namespace {

bool uses_unit(const Plan& plan) {
  return plan.step == StepRule::matrix_unit || plan.step == StepRule::matrix_unit_fresh;
}

void check_call(const Plan& plan, const DeviceWeight& weight, const GemmArgs& args) {
  require(weight.n == plan.n && weight.k == plan.k, plan.kernel, ": the plan is for N = ", plan.n, ", K = ", plan.k,
          ", the weight has N = ", weight.n, ", K = ", weight.k);
  require(weight.is_dense() == (plan.weight == WeightRule::dense), plan.kernel, ": the plan wants ",
          weight_rule_text(plan.weight), ", the weight holds ", weight.is_dense() ? "numbers" : "codes");
  require(weight.is_dense() || weight.group == plan.group, plan.kernel, ": the plan is for group size ", plan.group,
          ", the weight has ", weight.group);
  require((plan.epilogue.bias != BiasRule::none) == (args.bias != nullptr), plan.kernel, ": the plan has ",
          plan.epilogue.bias == BiasRule::none ? "no bias" : "a bias", ", the call ", args.bias ? "one" : "none");
  require(args.first_row >= 0 && args.first_row <= plan.m && args.row_count >= -1 &&
              args.row_count <= plan.m - args.first_row,
          plan.kernel, ": ", args.row_count, " rows from row ", args.first_row, " on, of ", plan.m);
  require(args.lda >= plan.k && args.ldo >= plan.n, plan.kernel, ": row strides ", args.lda, " and ", args.ldo,
          " are shorter than K = ", plan.k, " and N = ", plan.n);
}

}  // namespace

DevicePlan make_device_plan(const Plan& plan, const Allocator& allocator, void* stream, size_t workspace) {
  return DevicePlan(plan, uses_unit(plan) ? unit_tile(plan.m) : scalar_tile(), workspace, allocator, stream);
}

Scheme plan_scheme(const Plan& plan, OwnUnit own) {
  return uses_unit(plan) ? scheme_for(plan.unit, own) : Scheme::definition;
}

void emulate_gemm(const DevicePlan& plan, const DeviceWeight& weight, const GemmArgs& args,
                  const DeviceContext& context) {
  emulate_gemm(plan, weight, args, context, plan_scheme(plan.plan(), context.own));
}

void emulate_gemm(const DevicePlan& plan, const DeviceWeight& weight, const GemmArgs& args,
                  const DeviceContext& context, Scheme scheme) {
  check_call(plan.plan(), weight, args);
  emulate_gemm(plan, weight, expand(plan.plan(), weight, scheme, *context.allocator, context.stream), args, context,
               scheme);
}

ExpansionKey expansion_key(const Plan& plan, const DeviceWeight& weight, Scheme scheme) {
  const bool unit = uses_unit(plan);
  // as `uses_exponents` of the schemes in step_schemes.cuh and grid_step.cuh
  const bool exponents = unit && scheme != Scheme::native && scheme != Scheme::definition;
  return {.rule = plan.weight,
          .format = unit ? plan.activations : Format::fp32,
          .lowest = unit ? plan.unit.input_exponent : 0,
          .file_order = plan.file_order && weight.order.size() > 0,
          .scalar = !unit,
          .exponents = exponents};
}

size_t expanded_bytes(const ExpansionKey& key, const DeviceWeight& weight) {
  const auto numbers = static_cast<size_t>(weight.panels() * kPanelWidth * ((weight.k + 31) / 32 * 32));
  return numbers * (key.scalar || key.exponents ? 4 : 2);
}

ExpandedWeight expand(const Plan& plan, const DeviceWeight& weight, Scheme scheme, const Allocator& allocator,
                      void* stream) {
  const ExpansionKey key = expansion_key(plan, weight, scheme);
  ExpandedWeight out;
  if (key.scalar) {
    out.scalar = expand_weight_fp32(plan, weight, allocator, stream);
  } else {
    out.unit = expand_weight(plan, weight, key.exponents, allocator, stream);
  }
  return out;
}

void emulate_gemm(const DevicePlan& device_plan, const DeviceWeight& weight, const ExpandedWeight& expanded,
                  const GemmArgs& args, const DeviceContext& context, Scheme scheme) {
  const Plan& plan = device_plan.plan();
  check_call(plan, weight, args);
  const Allocator& allocator = *context.allocator;
  const RowRange rows{args.first_row, args.row_count < 0 ? plan.m : args.first_row + args.row_count};
  if (rows.count() == 0) return;
  PassList some;
  if (rows.count() < plan.m) some = device_plan.passes(rows, allocator, context.stream);
  const PassList& list = rows.count() < plan.m ? some : device_plan.passes();
  const Buffer<float> partials(allocator, static_cast<size_t>(list.largest_partials), context.stream);
  const auto run_passes = [&](auto&& run_leaves) {
    for (const Pass& pass : list.passes) {
      run_leaves(LeafCall{&device_plan, &pass, partials.data(), rows.begin, context.stream});
      combine({&device_plan, &pass, &weight, partials.data(), context.seed, context.deterministic, context.stream},
              args);
    }
  };
  if (uses_unit(plan)) {
    const UnitOperand x = expand_activations(plan, weight, args, allocator, context.stream);
    run_passes([&](const LeafCall& call) { run_unit_leaves(call, scheme, expanded.unit, x); });
  } else {
    const ScalarOperand x = expand_activations_fp32(plan, weight, args, allocator, context.stream);
    run_passes([&](const LeafCall& call) { run_scalar_leaves(call, weight, expanded.scalar, x); });
  }
}

}  // namespace qf::cuda
