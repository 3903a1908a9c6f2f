#include "kernels/plan.h"

#include <algorithm>

#include "base/error.h"

namespace qf {
namespace {

bool same(const KWalk& a, const KWalk& b) {
  return a.start == b.start && a.length == b.length && a.stride == b.stride && a.count == b.count;
}

bool same(const Tree& a, const Tree& b) {
  if (a.leaf_narrow != b.leaf_narrow || a.racing != b.racing || a.race_narrow != b.race_narrow) return false;
  return std::equal(a.leaves.begin(), a.leaves.end(), b.leaves.begin(), b.leaves.end(),
                    [](const Leaf& x, const Leaf& y) {
                      return std::equal(x.walks.begin(), x.walks.end(), y.walks.begin(), y.walks.end(),
                                        [](const KWalk& p, const KWalk& q) { return same(p, q); });
                    }) &&
         std::equal(a.adds.begin(), a.adds.end(), b.adds.begin(), b.adds.end(), [](const Add& x, const Add& y) {
           return x.left == y.left && x.right == y.right && x.narrow == y.narrow;
         });
}

void check_tree(const Plan& plan, const Tree& tree) {
  std::vector<uint8_t> seen(static_cast<size_t>(plan.k), 0);
  for (const Leaf& leaf : tree.leaves) {
    for (const KWalk& walk : leaf.walks) {
      for (int64_t i = 0; i < walk.count; ++i) {
        const int64_t begin = walk.start + i * walk.stride;
        require(begin >= 0 && begin + walk.length <= plan.k, plan.kernel, ": a walk leaves K = ", plan.k, " at ",
                begin);
        for (int64_t k = begin; k < begin + walk.length; ++k) {
          require(!seen[static_cast<size_t>(k)]++, plan.kernel, ": k = ", k, " is walked twice");
        }
      }
    }
  }
  const auto missing = std::find(seen.begin(), seen.end(), 0);
  require(missing == seen.end(), plan.kernel, ": k = ", missing - seen.begin(), " is walked by no leaf");
  require(!tree.racing || tree.adds.empty(), plan.kernel, ": a racing tree has no ordered adds");
  require(tree.racing || tree.adds.size() + 1 == tree.leaves.size(), plan.kernel, ": ", tree.leaves.size(),
          " leaves need one add less, found ", tree.adds.size());
  std::vector<uint8_t> used(tree.leaves.size() + tree.adds.size(), 0);
  for (size_t i = 0; i < tree.adds.size(); ++i) {
    const int32_t limit = static_cast<int32_t>(tree.leaves.size() + i);
    for (const int32_t node : {tree.adds[i].left, tree.adds[i].right}) {
      require(node >= 0 && node < limit, plan.kernel, ": add ", i, " uses node ", node, " before it exists");
      require(!used[static_cast<size_t>(node)]++, plan.kernel, ": node ", node, " is added twice");
    }
  }
}

}  // namespace

int32_t intern_tree(Plan& plan, const Tree& tree) {
  for (size_t i = 0; i < plan.trees.size(); ++i) {
    if (same(plan.trees[i], tree)) return static_cast<int32_t>(i);
  }
  plan.trees.push_back(tree);
  return static_cast<int32_t>(plan.trees.size()) - 1;
}

void add_region(Plan& plan, const Region& region) {
  if (region.row_begin >= region.row_end || region.column_begin >= region.column_end) return;
  if (!plan.regions.empty()) {
    Region& last = plan.regions.back();
    if (last.row_begin == region.row_begin && last.row_end == region.row_end && last.tree == region.tree &&
        last.column_end == region.column_begin) {
      last.column_end = region.column_end;
      return;
    }
  }
  plan.regions.push_back(region);
}

void check_plan(const Plan& plan) {
  for (const Tree& tree : plan.trees) check_tree(plan, tree);
  int64_t outputs = 0;
  for (const Region& region : plan.regions) {
    require(
        region.row_begin >= 0 && region.row_end <= plan.m && region.column_begin >= 0 && region.column_end <= plan.n,
        plan.kernel, ": a region leaves the output");
    require(
        region.column_begin % kPanelWidth == 0 && (region.column_end % kPanelWidth == 0 || region.column_end == plan.n),
        plan.kernel, ": region columns [", region.column_begin, ", ", region.column_end, ") cut a panel of 16");
    outputs += (region.row_end - region.row_begin) * (region.column_end - region.column_begin);
  }
  // Regions come from disjoint tiles, so that equal areas mean an exact cover.
  require(outputs == plan.m * plan.n, plan.kernel, ": regions cover ", outputs, " of ", plan.m * plan.n, " outputs");
}

void add_serially(Tree& tree, const std::vector<int32_t>& nodes, Narrow each) {
  int32_t sum = nodes.front();
  for (size_t i = 1; i < nodes.size(); ++i) {
    tree.adds.push_back({sum, nodes[i], each});
    sum = tree.root();
  }
}

Leaf straight_leaf(int64_t begin, int64_t end) { return {{KWalk{begin, end - begin, end - begin, 1}}}; }

Tree single_walk(int64_t k) {
  Tree tree;
  tree.leaves.push_back(straight_leaf(0, k));
  return tree;
}

}  // namespace qf
