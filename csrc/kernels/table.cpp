#include "kernels/table.h"

#include <algorithm>

#include "base/error.h"

namespace qf {

const std::vector<KernelInfo>& kernel_table() {
  static const std::vector<KernelInfo> table = {
#define QF_KERNEL(name, option_names, summary) {#name, option_names, summary, plan_##name},
#include "kernels/kernels.def"
#undef QF_KERNEL
  };
  return table;
}

const std::vector<VariantInfo>& variant_table() {
  static const std::vector<VariantInfo> table = {
#define QF_VARIANT(variant, gpu_class, engine, layers, kernel) {variant, gpu_class, engine, layer_##layers, kernel},
#include "kernels/variants.def"
#undef QF_VARIANT
  };
  return table;
}

const KernelInfo& find_kernel(std::string_view name) {
  std::string known;
  for (const KernelInfo& info : kernel_table()) {
    if (name == info.name) return info;
    known += (known.empty() ? "" : ", ") + std::string(info.name);
  }
  throw Error("unknown kernel '" + std::string(name) + "'; one of: " + known);
}

std::string resolve_variant(std::string_view variant, std::string_view gpu_class, std::string_view engine,
                            const LayerShape* layer) {
  for (const VariantInfo& line : variant_table()) {
    const bool gpu = std::string_view("any") == line.gpu_class || gpu_class == line.gpu_class;
    if (variant == line.variant && engine == line.engine && gpu && (!layer || line.takes(*layer))) return line.kernel;
  }
  throw Error("no kernel is known for variant '" + std::string(variant) + "' on '" + std::string(gpu_class) +
              "' GPUs in engine '" + std::string(engine) + "'");
}

namespace {

// Far above every real layer, and low enough that no product of sizes overflows and a plan stays small.
constexpr int64_t kLargestExtent = int64_t{1} << 24, kLargestOutput = int64_t{1} << 34;

void check_problem(std::string_view kernel, const Problem& p, const DeviceNumbers& device) {
  require(p.m >= 1 && p.n >= 1 && p.k >= 1, kernel, ": shape M = ", p.m, ", N = ", p.n, ", K = ", p.k,
          " must be positive");
  require(std::max({p.m, p.n, p.k}) <= kLargestExtent && p.m * p.n <= kLargestOutput && p.k * p.n <= kLargestOutput,
          kernel, ": shape M = ", p.m, ", N = ", p.n, ", K = ", p.k, " is beyond ", kLargestExtent, " per side or ",
          kLargestOutput, " weights or outputs");
  require(p.group == -1 || (p.group >= 1 && p.k % p.group == 0), kernel, ": K = ", p.k,
          " is no multiple of the group size ", p.group);
  require(device.sm_count >= 1, kernel, ": a device has at least one SM, got ", device.sm_count);
}

}  // namespace

Plan make_plan(std::string_view kernel, const Problem& problem, const DeviceNumbers& device,
               const KernelOptions& options) {
  const KernelInfo& info = find_kernel(kernel);
  check_problem(kernel, problem, device);
  Problem resolved = problem;
  if (problem.group == -1) resolved.group = problem.k;
  Plan plan = info.plan(resolved, device, options);
  plan.m = problem.m, plan.n = problem.n, plan.k = problem.k, plan.group = resolved.group;
  const bool steps = plan.step == StepRule::matrix_unit || plan.step == StepRule::matrix_unit_fresh;
  require(!steps || plan.unit.products > 0, kernel, ": this device has no matrix unit for ",
          format_name(problem.format));
  check_plan(plan);
  return plan;
}

}  // namespace qf
