// A plan of striped trees (kernels/striped_tree.h) as tables that the kernel walks, and the choice of who does what on
// a GPU. The tables are the plan; the choice changes no bit.
#pragma once

#include <string>
#include <vector>

#include "kernels/plan.h"

namespace qf::cuda {

inline constexpr int kStripColumns = 16;  // columns of the output that a warp's instruction takes
inline constexpr int kMarlinStages = 10;  // most stretches of k in flight
inline constexpr int kMarlinStrips = 32;  // most of a block
inline constexpr int kFetchingWarps = 2;  // one for weights, one for activations

/// Most threads of a block. Shapes that a block runs many warps of make do with 72 registers per thread.
constexpr int marlin_threads(int row_tiles, int strip_tiles) {
  const bool many = strip_tiles == 2 ? row_tiles <= 2 : row_tiles >= 4;
  return many ? 832 : 512;
}

/// Rows of the output whose trees were made together: at most 64.
struct RowBlock {
  int32_t begin, end;
};

/// Row blocks that one kernel launch computes.
struct StripedLaunch {
  int first_block, block_count;
  int rows;       // of the largest block
  int warp_rows;  // chunks of 32 k per k-tile: 2 or 4
  int slices;     // most of a tree
};

struct StripedPlan {
  std::vector<RowBlock> row_blocks;
  std::vector<int32_t> cut_begin;  // [row block][strip]: where the strip's cuts are
  std::vector<int32_t> cuts;       // per tree: the number of slices, then the end of each, in k-tiles
  std::vector<StripedLaunch> launches;
  Narrow hop = Narrow::none;
};

/// Reads the trees; returns why the plan is no striped one, or an empty string.
std::string read_striped_plan(const Plan& plan, StripedPlan* striped);

/// How a launch is spread over a GPU.
///
/// A cluster takes a group of strips over all of K. A warp walks one warp row of its strips; the blocks of a cluster of
/// two take half of the warp rows each, so that partial sums meet in shared memory.
struct MarlinShape {
  int row_tiles;      // tiles of 8 rows per warp: 1, 2, 4, 8
  int row_warps;      // warps side by side over the rows
  int strip_tiles;    // strips per warp: 1, 2
  int cluster;        // blocks of a cluster: 1, 2
  int groups;         // groups of strips
  int group_strips;   // strips of the largest group
  int threads;        // of a block; the last two warps fetch
  int stages;         // stretches of k in flight
  int stage_k;        // k of one
  int shared_bytes;   // of a block
  int leaf_slots;     // partial sums of a slice
  int leaf_floats;    // partial sums of a block
  bool leaves_apart;  // partial sums are in device memory: they do not fit
};

/// Bytes of a stage in shared memory.
struct MarlinStage {
  int activation_bytes;      // of one chunk
  int codes_at, numbers_at;  // after the activations
  int weight_bytes;          // codes and numbers
  int bytes;
};

struct MarlinLimits {
  int sm_count;
  int shared_bytes;  // most of a block
};

/// Rows of activations in shared memory: whole tiles.
inline int padded_rows(const MarlinShape& shape) { return shape.row_tiles * shape.row_warps * 8; }
MarlinStage marlin_stage(const Plan& plan, const StripedLaunch& launch, const MarlinShape& shape, int stage_k);
MarlinShape choose_marlin_shape(const Plan& plan, const StripedLaunch& launch, const MarlinLimits& limits);

}  // namespace qf::cuda
