#include "kernels/native/marlin_schedule.h"

#include <algorithm>

#include "base/error.h"
#include "kernels/native/marlin_layout.h"
#include "kernels/native/native_kernels.h"
#include "kernels/parts.h"
#include "kernels/striped_tree.h"

namespace qf::cuda {
namespace {

constexpr int64_t kBlockRows = 64;
constexpr int kStageK = 128;  // a stage is a multiple of it: whole groups, whole k-tiles

/// Ends of the slices in k-tiles; empty: not a striped tree.
std::vector<int64_t> slice_cuts(const Tree& tree, int64_t k, int64_t tile_k, Narrow hop) {
  const auto warp_rows = static_cast<size_t>(tile_k / kStripedChunk);
  if (k % tile_k != 0 || tree.leaves.size() % warp_rows != 0) return {};
  std::vector<int64_t> cuts;
  for (size_t i = 0; i < tree.leaves.size(); i += warp_rows) {
    if (tree.leaves[i].walks.empty()) return {};
    cuts.push_back(tree.leaves[i].walks[0].start / tile_k);
  }
  cuts.push_back(k / tile_k);
  if (!std::is_sorted(cuts.begin(), cuts.end()) || !same_tree(tree, striped_tree(cuts, tile_k, hop))) return {};
  return cuts;
}

struct ReadTree {
  int warp_rows = 0, slices = 0;
  int32_t begin = 0;  // in StripedPlan::cuts
};

bool read_tree(const Plan& plan, const Tree& tree, StripedPlan& striped, ReadTree& read) {
  for (const int64_t tile_k : {128, 64}) {
    const std::vector<int64_t> cuts = slice_cuts(tree, plan.k, tile_k, striped.hop);
    if (cuts.empty()) continue;
    read = {static_cast<int>(tile_k / kStripedChunk), static_cast<int>(cuts.size()) - 1,
            static_cast<int32_t>(striped.cuts.size())};
    striped.cuts.push_back(read.slices);
    striped.cuts.insert(striped.cuts.end(), cuts.begin() + 1, cuts.end());
    return true;
  }
  return false;
}

/// The launch that a row block joins: the last one, where its numbers are alike.
void add_to_launches(std::vector<StripedLaunch>& launches, int block, int rows, const ReadTree& tree) {
  if (!launches.empty() && launches.back().warp_rows == tree.warp_rows && launches.back().rows == rows) {
    launches.back().block_count += 1;
  } else {
    launches.push_back({block, 1, rows, tree.warp_rows, 0});
  }
}

Narrow hop_of(const Plan& plan) {
  for (const Tree& tree : plan.trees) {
    for (const Add& add : tree.adds) {
      if (add.narrow != Narrow::none) return add.narrow;
    }
  }
  return Narrow::none;
}

}  // namespace

std::string read_striped_plan(const Plan& plan, StripedPlan* striped) {
  const int64_t strips = plan.n / kStripColumns;
  if (plan.n % 64 != 0 || plan.k % 64 != 0) return "N and K are no multiples of 64";
  if (plan.n >= (1 << 24) || plan.k >= (1 << 24) || plan.m >= (1 << 24)) return "a side is 2^24 or more";
  StripedPlan out;
  out.hop = hop_of(plan);
  std::vector<ReadTree> trees(plan.trees.size());
  for (size_t i = 0; i < plan.trees.size(); ++i) {
    if (!read_tree(plan, plan.trees[i], out, trees[i])) return "tree " + std::to_string(i) + " is not a striped one";
  }
  for (const Region& region : plan.regions) {
    const ReadTree& tree = trees[static_cast<size_t>(region.tree)];
    if (region.column_begin % 64 != 0 || region.column_end % 64 != 0) return "a region is not a tile's";
    // taller regions than a block takes are cut: rows do not meet
    const size_t blocks = static_cast<size_t>((region.row_end - region.row_begin + kBlockRows - 1) / kBlockRows);
    const bool fresh = out.row_blocks.empty() || out.row_blocks.back().end <= region.row_begin;
    for (int64_t row = region.row_begin; fresh && row < region.row_end; row += kBlockRows) {
      const auto begin = static_cast<int32_t>(row),
                 end = static_cast<int32_t>(std::min(region.row_end, row + kBlockRows));
      add_to_launches(out.launches, static_cast<int>(out.row_blocks.size()), end - begin, tree);
      out.row_blocks.push_back({begin, end});
      out.cut_begin.resize(out.row_blocks.size() * static_cast<size_t>(strips), -1);
    }
    const size_t first = out.row_blocks.size() - std::min(blocks, out.row_blocks.size());
    if (out.row_blocks[first].begin != region.row_begin || out.row_blocks.back().end != region.row_end) {
      return "the regions are not in rows of tiles";
    }
    for (StripedLaunch& launch : out.launches) {
      if (launch.first_block + launch.block_count <= static_cast<int>(first)) continue;
      if (launch.warp_rows != tree.warp_rows) return "the regions are not in rows of tiles";
      launch.slices = std::max(launch.slices, tree.slices);
    }
    for (size_t block = first; block < out.row_blocks.size(); ++block) {
      const auto row = out.cut_begin.begin() + static_cast<int64_t>(block) * strips;
      std::fill(row + region.column_begin / kStripColumns, row + region.column_end / kStripColumns, tree.begin);
    }
  }
  if (std::count(out.cut_begin.begin(), out.cut_begin.end(), -1) > 0) return "the regions are not in rows of tiles";
  if (striped != nullptr) *striped = std::move(out);
  return "";
}

namespace {

int ceil_div(int a, int b) { return (a + b - 1) / b; }

/// Stages of at least four k-tiles where they are small, and as many as fit.
void fit_shared_memory(const Plan& plan, const StripedLaunch& launch, const MarlinLimits& limits, MarlinShape& shape) {
  constexpr int kApart = 2048;  // barriers, slice counts, alignment, what the runtime keeps
  constexpr int kEnough = 4;    // stages in flight
  const int all = limits.shared_bytes - kApart;
  // small blocks leave room for the next launch's on the same SM, which then fetches its weights ahead
  const int half = shape.threads <= 448 ? limits.shared_bytes / 2 - kApart : all;
  const int blocks = ceil_div(static_cast<int>(plan.k), kStageK);
  shape.leaf_slots = shape.cluster == 1 ? 1 : launch.warp_rows / shape.cluster;
  shape.leaf_floats = launch.slices * shape.leaf_slots * launch.rows * (shape.group_strips * kStripColumns + 4);
  int leaves = 4 * shape.leaf_floats;
  const auto try_stage = [&](int count, int least, int limit) {
    const int bytes = marlin_stage(plan, launch, shape, count * kStageK).bytes;
    const int wanted = std::min(ceil_div(blocks, count), kMarlinStages);
    const int stages = std::min(wanted, (limit - leaves) / bytes);
    if (stages < std::min(wanted, least)) return false;
    shape.stages = stages;
    shape.stage_k = count * kStageK;
    shape.shared_bytes = stages * bytes + leaves + 1024;
    return true;
  };
  shape.leaves_apart = !try_stage(1, 3, all);
  if (shape.leaves_apart) leaves = 0;
  for (const int limit : {half, all}) {
    for (const int count : {4, 2}) {
      if (count <= blocks && try_stage(count, kEnough, limit)) return;
    }
  }
  require(try_stage(1, 1, all), "marlin: a stage does not fit into ", limits.shared_bytes, " bytes of shared memory");
}

}  // namespace

MarlinStage marlin_stage(const Plan& plan, const StripedLaunch& launch, const MarlinShape& shape, int stage_k) {
  const int chunks = stage_k / kChunkK / shape.cluster;
  const int groups = plan.group == plan.k ? 1 : stage_k / static_cast<int>(plan.group);
  MarlinStage stage{};
  stage.activation_bytes = padded_rows(shape) * kActivationChunkBytes;
  stage.codes_at = chunks * stage.activation_bytes;
  stage.numbers_at = stage.codes_at + chunks * shape.group_strips * kChunkBytes;
  const int end = stage.numbers_at + groups * shape.group_strips * (kScaleUnits + 1) * 16;
  stage.bytes = ceil_div(end, 1024) * 1024;  // the swizzle's pattern repeats within
  return stage;
}

MarlinShape choose_marlin_shape(const Plan& plan, const StripedLaunch& launch, const MarlinLimits& limits) {
  const int strips = static_cast<int>(plan.n) / kStripColumns, tiles = ceil_div(launch.rows, 8);
  const int work = strips * launch.block_count;
  MarlinShape shape{};
  // Many strips per SM: a block takes all warp rows of its own. Few: two blocks share them, for half the activations.
  shape.cluster = work / limits.sm_count >= 8 ? 1 : 2;
  const int classes = launch.warp_rows / shape.cluster;
  const int share = ceil_div(work * shape.cluster, limits.sm_count);  // strips of a group, evenly spread
  /// Whether a block has the warps for its share; where it has not, its groups become smaller.
  const auto take = [&](int row_tiles, int strip_tiles) {
    shape.row_tiles = row_tiles;
    shape.row_warps = ceil_div(tiles, row_tiles);
    shape.strip_tiles = strip_tiles;
    const int warps = marlin_threads(row_tiles, strip_tiles) / 32 - kFetchingWarps;
    const int most = std::min(warps / (classes * shape.row_warps) * strip_tiles, kMarlinStrips);
    const int group = std::min(ceil_div(share, strip_tiles) * strip_tiles, most);
    shape.groups = ceil_div(strips, group);
    shape.group_strips = ceil_div(strips / strip_tiles, shape.groups) * strip_tiles;
    shape.threads = 32 * (shape.group_strips / strip_tiles * classes * shape.row_warps + kFetchingWarps);
    return share <= most;
  };
  // As many warps as there is room for: they hide each other's latencies. Wider tiles where they would be too many.
  if (tiles <= 4) {
    const int row_tiles = tiles <= 2 ? tiles : 4;
    if (!take(row_tiles, 1)) take(row_tiles, 2);
  } else if (!take(4, 1) && !take(8, 1)) {
    take(8, 2);
  }
  fit_shared_memory(plan, launch, limits, shape);
  return shape;
}

}  // namespace qf::cuda
