#include "kernels/native/pieces_plan.h"

#include <algorithm>
#include <numeric>
#include <queue>

#include "base/error.h"
#include "kernels/native/native_kernels.h"
#include "kernels/native/pieces_layout.h"

namespace qf::cuda {
namespace {

/// k-tiles at which the tree's leaves begin, and K's end; empty: no sum of ascending pieces.
std::vector<int32_t> ascending_cuts(const Tree& tree, int64_t k, Narrow narrow) {
  Tree wanted;
  std::vector<int32_t> cuts, nodes;
  for (const Leaf& leaf : tree.leaves) {
    if (leaf.walks.size() != 1 || leaf.walks[0].start % kPieceTileK != 0) return {};
    cuts.push_back(static_cast<int32_t>(leaf.walks[0].start / kPieceTileK));
  }
  cuts.push_back(static_cast<int32_t>(k / kPieceTileK));
  for (size_t i = 0; i + 1 < cuts.size(); ++i) {
    if (cuts[i] >= cuts[i + 1]) return {};
    wanted.leaves.push_back(straight_leaf(cuts[i] * int64_t{kPieceTileK}, cuts[i + 1] * int64_t{kPieceTileK}));
    nodes.push_back(static_cast<int32_t>(i));
  }
  add_serially(wanted, nodes, narrow);
  wanted.leaf_narrow = tree.leaf_narrow == narrow ? narrow : Narrow::none;  // fp16 sums are fp16 numbers
  if (cuts[0] != 0 || !same_tree(tree, wanted)) return {};
  return cuts;
}

/// Appends a region, or lengthens one of the same columns and cuts that ends where this one begins.
void add_rows(std::vector<PieceRegion>& regions, PieceRegion region) {
  for (PieceRegion& r : regions) {
    if (r.row_end == region.row_begin && r.column_begin == region.column_begin && r.column_end == region.column_end &&
        r.cuts == region.cuts) {
      r.row_end = region.row_end;
      return;
    }
  }
  regions.push_back(std::move(region));
}

constexpr int kMostRows = kPiecesShapes[std::size(kPiecesShapes) - 1].rows * 16;
constexpr int kRowsTogether = 16;     // row tiles whose activations neighbours in time share
constexpr double kBytesPerNs = 70.0;  // between a multiprocessor and the second-level cache, about

std::vector<PieceItem> items_of(const std::vector<PieceRegion>& regions, PiecesSchedule& schedule) {
  const PiecesShape& shape = schedule.shape;
  std::vector<PieceItem> items;
  for (const PieceRegion& region : regions) {
    const int pieces = static_cast<int>(region.cuts.size()) - 1, step = shape.rows * kRowsTogether;
    for (int band = region.row_begin; band < region.row_end; band += step) {
      for (int column = region.column_begin; column < region.column_end; column += shape.columns()) {
        for (int row = band; row < std::min(region.row_end, band + step); row += shape.rows) {
          for (int p = 0; p < pieces; ++p) {
            items.push_back({column,
                             region.column_end,
                             row,
                             region.row_end,
                             region.cuts[static_cast<size_t>(p)],
                             region.cuts[static_cast<size_t>(p) + 1],
                             p,
                             pieces,
                             schedule.slots,
                             schedule.counters,
                             {}});
          }
          if (pieces > 1) schedule.slots += pieces, schedule.counters += shape.groups;
        }
      }
    }
  }
  return items;
}

/// Longest first, each to the block that is free first; a block takes cut tiles before whole ones, so that few sums
/// are waited for at the end.
void spread(std::vector<PieceItem> items, bool half_sums, int sm_count, PiecesSchedule& schedule) {
  const PiecesShape& shape = schedule.shape;
  const auto length = [](const PieceItem& i) { return i.k_end - i.k_begin; };
  std::stable_sort(items.begin(), items.end(), [&](const auto& a, const auto& b) { return length(a) > length(b); });
  const auto blocks = std::min(items.size(), static_cast<size_t>(sm_count) * shape.blocks_per_sm);
  const double occupied = std::min(1.0, static_cast<double>(blocks) / sm_count);
  const double per_tile = shape.idle_ns + shape.busy_ns * occupied;
  const double sums = shape.rows * shape.columns() * (half_sums ? 2.0 : 4.0);  // bytes
  std::vector<std::vector<PieceItem>> mine(blocks);
  using Load = std::pair<double, size_t>;
  std::priority_queue<Load, std::vector<Load>, std::greater<>> free;
  for (size_t b = 0; b < blocks; ++b) free.push({0.0, b});
  for (const PieceItem& item : items) {
    auto [load, b] = free.top();
    free.pop();
    load += length(item) * per_tile + 500 + (item.pieces > 1 ? sums / kBytesPerNs : 0);
    mine[b].push_back(item);
    free.push({load, b});
    schedule.ns = std::max(schedule.ns, load);
  }
  for (auto& list : mine) {
    std::stable_sort(list.begin(), list.end(), [](const auto& a, const auto& b) { return a.pieces > b.pieces; });
    schedule.first.push_back(static_cast<int32_t>(schedule.items.size()));
    schedule.items.insert(schedule.items.end(), list.begin(), list.end());
  }
  schedule.first.push_back(static_cast<int32_t>(schedule.items.size()));
}

}  // namespace

std::string read_pieces_plan(const Plan& plan, Narrow narrow, std::vector<PieceRegion>* out) {
  std::vector<std::vector<int32_t>> cuts;
  for (const Tree& tree : plan.trees) {
    cuts.push_back(ascending_cuts(tree, plan.k, narrow));
    if (cuts.back().empty()) return "the plan adds in another order";
  }
  std::vector<PieceRegion> regions;
  for (const Region& r : plan.regions) {
    if (r.column_begin % kPaddedColumns != 0) return "takes regions of whole 128 columns";
    add_rows(regions,
             {static_cast<int32_t>(r.row_begin), static_cast<int32_t>(r.row_end), static_cast<int32_t>(r.column_begin),
              static_cast<int32_t>(r.column_end), cuts[static_cast<size_t>(r.tree)]});
  }
  if (out != nullptr) *out = std::move(regions);
  return "";
}

PiecesSchedule schedule_pieces(const std::vector<PieceRegion>& regions, bool half_sums, int sm_count) {
  int most_rows = 0;
  for (const PieceRegion& r : regions) most_rows = std::max(most_rows, r.row_end - r.row_begin);
  PiecesSchedule best;
  for (const PiecesShape& shape : kPiecesShapes) {
    if (half_sums && shape.rows < 16) continue;  // a thread's fp16 sums come in fours of words
    const bool too_large = shape.rows > 16 && shape.rows >= 2 * most_rows;
    const bool too_small =
        16 * shape.rows < std::min(most_rows, kMostRows) || (shape.rows < 16 && shape.rows < most_rows);
    if (too_large || too_small) continue;
    PiecesSchedule schedule;
    schedule.shape = shape;
    std::vector<PieceItem> items = items_of(regions, schedule);
    spread(std::move(items), half_sums, sm_count, schedule);
    if (best.items.empty() || schedule.ns < best.ns) best = std::move(schedule);
  }
  return best;
}

}  // namespace qf::cuda
