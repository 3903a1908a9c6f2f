// Plans whose outputs are sums of contiguous pieces of K, added in ascending order; and who computes which piece on a
// GPU. The pieces are the plan's, each whole in one block; tiles and blocks change no bit.
#pragma once

#include <string>
#include <vector>

#include "kernels/plan.h"

namespace qf::cuda {

struct PieceRegion {
  int32_t row_begin, row_end, column_begin, column_end;
  std::vector<int32_t> cuts;  // k-tiles 0, c1, c2, ..., K / 64
};

/// Reads the plan, whose sums are rounded to `narrow` each; returns why its trees are no such pieces, or an empty
/// string.
std::string read_pieces_plan(const Plan& plan, Narrow narrow, std::vector<PieceRegion>* regions);

/// A block's tile: two warpgroups (one below 32 rows) side by side over the columns, each with 64 of them. How long a
/// k-tile takes a block was measured on an H200 (benchmarks/results/native_machete_h200.md): idle_ns, and busy_ns more
/// per block and multiprocessor. The numbers rank shapes and nothing else.
struct PiecesShape {
  int rows;           // of activations: an instruction's n
  int groups;         // warpgroups
  int blocks_per_sm;  // that run at once
  int idle_ns, busy_ns;

  int columns() const { return 64 * groups; }
};

inline constexpr PiecesShape kPiecesShapes[] = {{8, 1, 4, 150, 350},  {16, 1, 4, 220, 330},  {32, 2, 2, 270, 130},
                                                {64, 2, 2, 240, 300}, {128, 2, 1, 300, 100}, {256, 2, 1, 550, 170}};

/// A piece of a tile: what one block computes at a time.
struct PieceItem {
  int32_t column, column_end, row, row_end;  // tile, and where the plan's region ends
  int32_t k_begin, k_end;                    // k-tiles
  int32_t piece, pieces;
  int32_t slot;     // of the tile's first partial sum
  int32_t counter;  // of the tile's first warpgroup
  int32_t unused[2];
};

struct PiecesSchedule {
  PiecesShape shape;
  std::vector<PieceItem> items;  // block after block
  std::vector<int32_t> first;    // of each block, and the end
  int slots = 0, counters = 0;
  double ns = 0;  // of the slowest block, estimated
};

/// The shape and schedule that end first by the estimate. `half_sums`: fp16 accumulators.
PiecesSchedule schedule_pieces(const std::vector<PieceRegion>& regions, bool half_sums, int sm_count);

}  // namespace qf::cuda
