#include "kernels/native/native_kernels.h"

#include <algorithm>

#include "base/error.h"

namespace qf::cuda {

const std::vector<NativeKernel>& native_kernels() {
  static const std::vector<NativeKernel> table = {
#define QF_NATIVE(name, least_capability, summary) \
  {#name, least_capability, summary, &refuse_##name, &pack_##name, &prepare_##name},
#include "kernels/native/native.def"
#undef QF_NATIVE
  };
  return table;
}

const NativeKernel* find_native_kernel(const Plan& plan, int compute_capability, std::string* why) {
  std::string reasons;
  for (const NativeKernel& kernel : native_kernels()) {
    std::string reason;
    if (compute_capability < kernel.least_capability) {
      reason = "needs compute capability " + std::to_string(kernel.least_capability) + ", the GPU has " +
               std::to_string(compute_capability);
    } else {
      reason = kernel.refusal(plan, compute_capability);
    }
    if (reason.empty()) return &kernel;
    reasons += std::string(reasons.empty() ? "" : "; ") + kernel.name + ": " + reason;
  }
  if (why != nullptr) *why = reasons;
  return nullptr;
}

const NativeKernel& require_native_kernel(const Plan& plan, int compute_capability) {
  std::string why;
  const NativeKernel* kernel = find_native_kernel(plan, compute_capability, &why);
  require(kernel != nullptr, "no native kernel serves the plan of ", plan.kernel, ", M = ", plan.m, ", N = ", plan.n,
          ", K = ", plan.k, " (", why, "); executor 'cuda' does");
  return *kernel;
}

std::string refuse_unit(const Plan& plan, int compute_capability) {
  const OwnUnit own = own_unit(compute_capability);
  if (scheme_for(plan.unit, own) == Scheme::native) return "";
  return "the plan's unit fuses " + std::to_string(plan.unit.products) + " products with " +
         std::to_string(plan.unit.fraction_bits) + " fraction bits, this GPU's " + std::to_string(own.products) +
         " with " + std::to_string(own.fraction_bits);
}

bool same_tree(const Tree& a, const Tree& b) {
  const auto same_walk = [](const KWalk& x, const KWalk& y) {
    return x.start == y.start && x.length == y.length && x.stride == y.stride && x.count == y.count;
  };
  const auto same_add = [](const Add& x, const Add& y) {
    return x.left == y.left && x.right == y.right && x.narrow == y.narrow;
  };
  if (a.leaves.size() != b.leaves.size() || a.adds.size() != b.adds.size()) return false;
  if (a.leaf_narrow != b.leaf_narrow || a.racing != b.racing) return false;
  if (a.racing && a.race_narrow != b.race_narrow) return false;
  for (size_t i = 0; i < a.leaves.size(); ++i) {
    const auto &x = a.leaves[i].walks, &y = b.leaves[i].walks;
    if (!std::equal(x.begin(), x.end(), y.begin(), y.end(), same_walk)) return false;
  }
  return std::equal(a.adds.begin(), a.adds.end(), b.adds.begin(), same_add);
}

void check_native_call(const Plan& plan, const NativeWeight& weight, const GemmArgs& args) {
  require(weight.n == plan.n && weight.k == plan.k && weight.group == plan.group, plan.kernel,
          ": the plan is for N = ", plan.n, ", K = ", plan.k, ", group ", plan.group, ", the weight has N = ", weight.n,
          ", K = ", weight.k, ", group ", weight.group);
  require((plan.epilogue.bias != BiasRule::none) == (args.bias != nullptr), plan.kernel, ": the plan has ",
          plan.epilogue.bias == BiasRule::none ? "no bias" : "a bias", ", the call ", args.bias ? "one" : "none");
  require(args.first_row == 0 && (args.row_count < 0 || args.row_count == plan.m), plan.kernel,
          ": a native kernel computes all rows of a call");
}

}  // namespace qf::cuda
