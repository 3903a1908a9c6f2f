#include "kernels/table.h"

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

Plan make_plan(std::string_view kernel, const Problem& problem, const DeviceNumbers& device,
               const KernelOptions& options) {
  const KernelInfo& info = find_kernel(kernel);
  require(problem.m >= 1 && problem.n >= 1 && problem.k >= 1, kernel, ": shape M = ", problem.m, ", N = ", problem.n,
          ", K = ", problem.k, " must be positive");
  Problem resolved = problem;
  if (problem.group == -1) resolved.group = problem.k;
  require(resolved.group >= 1 && resolved.k % resolved.group == 0, kernel, ": K = ", problem.k,
          " is no multiple of the group size ", problem.group);
  require(device.sm_count >= 1, kernel, ": a device has at least one SM, got ", device.sm_count);
  Plan plan = info.plan(resolved, device, options);
  plan.m = problem.m, plan.n = problem.n, plan.k = problem.k, plan.group = resolved.group;
  const bool steps = plan.step == StepRule::matrix_unit || plan.step == StepRule::matrix_unit_fresh;
  require(!steps || plan.unit.products > 0, kernel, ": this device has no matrix unit for ",
          format_name(problem.format));
  check_plan(plan);
  return plan;
}

}  // namespace qf
