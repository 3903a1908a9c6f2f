#include "kernels/striped_tree.h"

namespace qf {
namespace {

/// Sum of the warp rows of one slice; its node.
int32_t add_warp_rows(Tree& tree, int32_t first, int64_t warp_rows, Narrow last) {
  if (warp_rows == 4) {
    tree.adds.push_back({first + 3, first + 2, Narrow::none});
    tree.adds.push_back({first + 1, tree.root(), Narrow::none});
    tree.adds.push_back({first, tree.root(), last});
  } else {
    tree.adds.push_back({first, first + 1, last});
  }
  return tree.root();
}

}  // namespace

Tree striped_tree(const std::vector<int64_t>& cuts, int64_t tile_k, Narrow hop) {
  const int64_t warp_rows = tile_k / kStripedChunk;
  Tree tree;
  for (size_t s = 0; s + 1 < cuts.size(); ++s) {
    for (int64_t row = 0; row < warp_rows; ++row) {
      const int64_t start = cuts[s] * tile_k + kStripedChunk * row;
      tree.leaves.push_back({{KWalk{start, kStripedChunk, tile_k, cuts[s + 1] - cuts[s]}}});
    }
  }
  int32_t sum = -1;
  for (size_t s = cuts.size() - 1; s-- > 0;) {  // from the largest k down
    const bool bottom = sum < 0, top = s == 0;
    const int32_t first = static_cast<int32_t>(static_cast<int64_t>(s) * warp_rows);
    const int32_t slice = add_warp_rows(tree, first, warp_rows, bottom && !top ? hop : Narrow::none);
    if (!bottom) tree.adds.push_back({slice, sum, top ? Narrow::none : hop});
    sum = tree.root();
  }
  return tree;
}

}  // namespace qf
