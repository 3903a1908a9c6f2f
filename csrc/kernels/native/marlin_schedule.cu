#include "kernels/native/marlin_schedule.h"

#include <algorithm>

#include "base/error.h"
#include "kernels/native/marlin_layout.h"
#include "kernels/native/native_kernels.h"
#include "kernels/parts.h"
#include "kernels/striped_tree.h"

namespace qf::cuda {
namespace {

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
    const int rows = static_cast<int>(region.row_end - region.row_begin);
    if (rows > 64 || region.column_begin % 64 != 0 || region.column_end % 64 != 0) return "a region is not a tile's";
    const bool fresh = out.row_blocks.empty() || out.row_blocks.back().begin != region.row_begin;
    if (fresh) {
      out.row_blocks.push_back({static_cast<int32_t>(region.row_begin), static_cast<int32_t>(region.row_end)});
      out.cut_begin.resize(out.row_blocks.size() * static_cast<size_t>(strips), -1);
      add_to_launches(out.launches, static_cast<int>(out.row_blocks.size()) - 1, rows, tree);
    }
    StripedLaunch& launch = out.launches.back();
    if (out.row_blocks.back().end != region.row_end || launch.warp_rows != tree.warp_rows) {
      return "the regions are not in rows of tiles";
    }
    launch.slices = std::max(launch.slices, tree.slices);
    const auto row = out.cut_begin.end() - strips;
    std::fill(row + region.column_begin / kStripColumns, row + region.column_end / kStripColumns, tree.begin);
  }
  if (std::count(out.cut_begin.begin(), out.cut_begin.end(), -1) > 0) return "the regions are not in rows of tiles";
  if (striped != nullptr) *striped = std::move(out);
  return "";
}

namespace {

int ceil_div(int a, int b) { return (a + b - 1) / b; }

/// Stages of some 8 KiB, so that the first one arrives early, and as many as fit.
void fit_shared_memory(const Plan& plan, const StripedLaunch& launch, const MarlinLimits& limits, MarlinShape& shape) {
  constexpr int kApart = 2048;  // barriers, slice counts, alignment, what the runtime keeps
  constexpr int kStageBytes = 12288, kEnough = 4;
  const int half = limits.shared_bytes / 2 - kApart;  // leaves room for the next launch's block on the same SM
  const int all = limits.shared_bytes - kApart;
  const int blocks = ceil_div(static_cast<int>(plan.k), kStageK);
  const int block_bytes = marlin_stage(plan, launch, shape, kStageK).bytes;
  const int count = std::clamp(kStageBytes / block_bytes, 1, std::max(1, blocks / 8));
  const int leaf_rows = launch.slices * (shape.chains > 1 ? 1 : launch.warp_rows / shape.cluster) * launch.rows;
  shape.leaf_floats = leaf_rows * (shape.group_strips * kStripColumns + 4);
  const int most = std::min(ceil_div(blocks, count), kMarlinStages);
  shape.stage_k = count * kStageK;
  const int bytes = marlin_stage(plan, launch, shape, shape.stage_k).bytes;
  shape.leaves_apart = std::min(3, most) * bytes + 4 * int64_t{shape.leaf_floats} > all;
  const int leaves = shape.leaves_apart ? 0 : 4 * shape.leaf_floats;
  const auto stages_in = [&](int limit) { return (limit - leaves) / bytes; };
  shape.stages = std::min(most, stages_in(half) >= std::min(most, kEnough) ? stages_in(half) : stages_in(all));
  shape.shared_bytes = shape.stages * bytes + leaves + 1024;
  require(shape.stages > 0, "marlin: ", bytes, " bytes of shared memory needed per stage, the GPU has ",
          limits.shared_bytes);
}

}  // namespace

MarlinStage marlin_stage(const Plan& plan, const StripedLaunch& launch, const MarlinShape& shape, int stage_k) {
  const int chunks = stage_k / kChunkK / shape.cluster;
  const int groups = plan.group >= stage_k ? 1 : ceil_div(stage_k, static_cast<int>(plan.group));
  MarlinStage stage{};
  stage.activation_bytes = padded_rows(shape) * kActivationChunkBytes;
  stage.codes_at = chunks * stage.activation_bytes;
  stage.numbers_at = stage.codes_at + chunks * shape.group_strips * kChunkBytes;
  const int end = stage.numbers_at + groups * shape.group_strips * (kScaleUnits + 1) * 16;
  stage.bytes = ceil_div(end, 512) * 512;  // the swizzle's pattern repeats every 512 bytes
  return stage;
}

MarlinShape choose_marlin_shape(const Plan& plan, const StripedLaunch& launch, const MarlinLimits& limits) {
  const int strips = static_cast<int>(plan.n) / kStripColumns, tiles = ceil_div(launch.rows, 8);
  MarlinShape shape{};
  shape.row_tiles = tiles <= 2 ? tiles : 4;
  shape.row_warps = ceil_div(tiles, shape.row_tiles);
  const int per_sm = strips * launch.block_count / limits.sm_count;
  // Many strips: a warp walks all warp rows of its strips, and no sum leaves it before the slices'.
  const bool many = per_sm >= 8 && (launch.warp_rows == 4) == (shape.row_tiles <= 2);
  shape.chains = many ? launch.warp_rows : 1;
  shape.cluster = many ? 1 : 2;
  const int classes = many ? 1 : launch.warp_rows / shape.cluster;
  const auto warps = [&](int count, int width) { return ceil_div(count, width) * classes * shape.row_warps; };
  const auto strips_of = [&](int width) {  // of a group: an even share of the SMs, at most what the warps can take
    const int most = (kMarlinThreads / 32 - kFetchingWarps) / (classes * shape.row_warps) * width;
    const int share = ceil_div(strips * launch.block_count * shape.cluster, limits.sm_count);
    return std::clamp(ceil_div(share, width) * width, width, most);
  };
  const bool wide = shape.row_tiles == 4 && warps(strips_of(2), 2) >= 8;
  shape.strip_tiles = wide ? 2 : 1;
  const int units = strips / shape.strip_tiles;
  shape.groups = ceil_div(strips, strips_of(shape.strip_tiles));
  shape.group_strips = ceil_div(units, shape.groups) * shape.strip_tiles;
  shape.threads = 32 * (warps(shape.group_strips, shape.strip_tiles) + kFetchingWarps);
  fit_shared_memory(plan, launch, limits, shape);
  return shape;
}

}  // namespace qf::cuda
