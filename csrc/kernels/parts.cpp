#include "kernels/parts.h"

#include <algorithm>

#include "base/error.h"

namespace qf {

Plan begin_plan(const char* kernel, const Problem& problem, const DeviceNumbers& device, const KernelOptions& options) {
  Plan plan;
  plan.kernel = kernel;
  plan.m = problem.m, plan.n = problem.n, plan.k = problem.k, plan.group = problem.group;
  plan.activations = problem.format;
  plan.epilogue.output = problem.format;
  const bool bf16 = problem.format == Format::bf16;
  plan.weight = options.dense ? WeightRule::dense : (bf16 ? WeightRule::bf16_sub_mul : WeightRule::fp16_sub_mul);
  plan.unit = bf16 ? device.bf16 : device.fp16;
  add_bias_after(plan, options);
  return plan;
}

void add_bias_after(Plan& plan, const KernelOptions& options) {
  if (!options.bias) return;
  plan.epilogue.bias = BiasRule::after_rounding;
  plan.unconfirmed.push_back("bias: added to the rounded result and rounded again (source only)");
}

void require_format(const char* kernel, Format format, std::initializer_list<Format> allowed) {
  std::string names;
  for (const Format one : allowed) {
    if (one == format) return;
    names += (names.empty() ? "" : " or ") + std::string(format_name(one));
  }
  throw Error(std::string(kernel) + ": takes " + names + " activations, found " + format_name(format));
}

Narrow narrow_of(Format format) {
  switch (format) {
    case Format::fp16: return Narrow::fp16;
    case Format::bf16: return Narrow::bf16;
    case Format::fp32: return Narrow::none;
  }
  return Narrow::none;
}

Tree contiguous_parts(int64_t k, int64_t split, Narrow narrow) {
  constexpr int64_t kTile = 64;  // of the GEMM kernels' K
  const int64_t tiles = ceil_div(k, kTile), per = ceil_div(tiles, split);
  Tree tree;
  tree.leaf_narrow = narrow;
  std::vector<int32_t> parts;
  for (int64_t begin = 0; begin < tiles; begin += per) {
    parts.push_back(static_cast<int32_t>(tree.leaves.size()));
    tree.leaves.push_back(straight_leaf(begin * kTile, std::min(k, (begin + per) * kTile)));
  }
  add_serially(tree, parts, narrow);
  return tree;
}

void whole_output(Plan& plan, const Tree& tree) { add_region(plan, {0, plan.m, 0, plan.n, intern_tree(plan, tree)}); }

bool recorded_device(const DeviceNumbers& device) { return device.sm_count == 132 && device.fp16.products == 16; }

void note_device(Plan& plan, const DeviceNumbers& device) {
  if (recorded_device(device)) return;
  plan.unconfirmed.push_back("device: recordings exist of 132 SMs with 16 products per step, this plan has " +
                             std::to_string(device.sm_count) + " SMs with " + std::to_string(plan.unit.products));
}

int64_t wave_size(int64_t sm_count, int64_t cluster) {
  if (cluster == 1) return sm_count;
  const int64_t per_gpc = 18, rest = sm_count % per_gpc;
  return std::min(sm_count, sm_count / per_gpc * (per_gpc - per_gpc % cluster) + (rest - rest % cluster));
}

}  // namespace qf
