// The plan in words.
#include <sstream>

#include "kernels/plan.h"

namespace qf {
namespace {

constexpr size_t kShownRegions = 12, kShownTrees = 3;

const char* narrow_text(Narrow narrow) {
  switch (narrow) {
    case Narrow::none: return "";
    case Narrow::fp16: return " -> fp16";
    case Narrow::bf16: return " -> bf16";
  }
  return "";
}

void describe_walk(std::ostream& out, const KWalk& walk) {
  if (walk.count == 1) {
    out << "k " << walk.start << ".." << walk.start + walk.length - 1;
    return;
  }
  out << walk.count << " x " << walk.length << " k from " << walk.start << " every " << walk.stride;
}

void describe_node(std::ostream& out, const Tree& tree, int32_t node, const std::string& indent) {
  const int32_t leaves = static_cast<int32_t>(tree.leaves.size());
  if (node < leaves) {
    out << indent << "leaf " << node << ": ";
    const auto& walks = tree.leaves[static_cast<size_t>(node)].walks;
    for (size_t i = 0; i < walks.size(); ++i) {
      if (i) out << ", then ";
      describe_walk(out, walks[i]);
    }
    if (walks.empty()) out << "nothing (+0)";
    out << narrow_text(tree.leaf_narrow) << "\n";
    return;
  }
  const Add& add = tree.adds[static_cast<size_t>(node - leaves)];
  out << indent << "fp32 add" << narrow_text(add.narrow) << "\n";
  describe_node(out, tree, add.left, indent + "  ");
  describe_node(out, tree, add.right, indent + "  ");
}

void describe_tree(std::ostream& out, const Plan& plan, size_t index) {
  const Tree& tree = plan.trees[index];
  int64_t outputs = 0;
  for (const Region& r : plan.regions) {
    if (r.tree == static_cast<int32_t>(index)) outputs += (r.row_end - r.row_begin) * (r.column_end - r.column_begin);
  }
  out << "tree " << index << " (" << outputs << " outputs):\n";
  if (!tree.racing) {
    describe_node(out, tree, tree.root(), "  ");
    return;
  }
  out << "  racing adds to +0" << narrow_text(tree.race_narrow)
      << " each, one order per (row, 64 columns, parity of column / 2)\n";
  for (int32_t leaf = 0; leaf < static_cast<int32_t>(tree.leaves.size()); ++leaf)
    describe_node(out, tree, leaf, "    ");
}

}  // namespace

const char* format_name(Format format) {
  switch (format) {
    case Format::fp16: return "fp16";
    case Format::bf16: return "bf16";
    case Format::fp32: return "fp32";
  }
  return "unknown";
}

const char* weight_rule_text(WeightRule rule) {
  switch (rule) {
    case WeightRule::fp16_sub_mul: return "fp16((q - z) * s)";
    case WeightRule::bf16_sub_mul: return "bf16((q - z) * s)";
    case WeightRule::fp16_fma: return "fp16(q * s + fp16(-z * s))";
    case WeightRule::bf16_fma: return "bf16(q * s + bf16(-z * s))";
    case WeightRule::bf16_offset: return "bf16((q - 8) * s + bf16((8 - z) * s)), or bf16((q - z) * s + stored offset)";
    case WeightRule::integer: return "q - z, scaled later";
    case WeightRule::real: return "(q - z) * s, not rounded";
    case WeightRule::dense: return "stored numbers";
  }
  return "unknown";
}

const char* step_rule_text(StepRule rule) {
  switch (rule) {
    case StepRule::matrix_unit: return "matrix unit, accumulator carried";
    case StepRule::matrix_unit_fresh: return "matrix unit from +0 every 16 k, added in fp32";
    case StepRule::half2_chain: return "per 8 k two chains of four fp16 FMAs, their fp32 sum times s by fp32 FMA";
    case StepRule::float_fma: return "fp32 FMA per k";
    case StepRule::int32: return "exact int32 sum per activation group, scaled by fp32 FMA";
  }
  return "unknown";
}

std::string describe(const Plan& plan) {
  std::ostringstream out;
  out << plan.kernel << "  M = " << plan.m << ", N = " << plan.n << ", K = " << plan.k << ", group " << plan.group
      << "\n";
  out << plan.sentence << "\n";
  out << "weights: " << weight_rule_text(plan.weight) << "\nsteps: " << step_rule_text(plan.step);
  if (plan.step == StepRule::matrix_unit || plan.step == StepRule::matrix_unit_fresh) {
    out << ", " << plan.unit.products << " products, " << plan.unit.fraction_bits << " fraction bits";
  }
  out << "\noutput: "
      << (plan.epilogue.channel_scale ? "rounded, times the column's scale, rounded to " : "rounded to ")
      << format_name(plan.epilogue.output) << (plan.epilogue.bias == BiasRule::none ? "" : ", with bias") << "\n";
  for (const std::string& fact : plan.facts) out << "* " << fact << "\n";
  if (plan.confirmed()) {
    out << "confirmed by recordings\n";
  } else {
    for (const std::string& note : plan.unconfirmed) out << "unconfirmed: " << note << "\n";
  }
  for (size_t i = 0; i < plan.regions.size() && i < kShownRegions; ++i) {
    const Region& r = plan.regions[i];
    out << "rows " << r.row_begin << ".." << r.row_end - 1 << ", columns " << r.column_begin << ".." << r.column_end - 1
        << ": tree " << r.tree << "\n";
  }
  if (plan.regions.size() > kShownRegions)
    out << "... and " << plan.regions.size() - kShownRegions << " regions more\n";
  for (size_t i = 0; i < plan.trees.size() && i < kShownTrees; ++i) describe_tree(out, plan, i);
  if (plan.trees.size() > kShownTrees) out << "... and " << plan.trees.size() - kShownTrees << " trees more\n";
  return out.str();
}

}  // namespace qf
