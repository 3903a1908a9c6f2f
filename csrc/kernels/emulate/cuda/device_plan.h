// A plan as tables that a kernel can walk.
//
// The rows of a call are done in passes, so that the leaves' partial sums of one pass fit in a bounded workspace. A
// pass is a list of regions cut to its rows; each region is covered by tiles, and a block takes one leaf of one tile.
#pragma once

#include <vector>

#include "base/cuda/buffer.h"
#include "kernels/plan.h"

namespace qf::cuda {

/// k consecutive k that a leaf takes next: at most 32, a multiple of 16 (K is padded with zeros).
struct Chunk {
  int32_t start;
  int32_t length;
};

/// left += right, rounded; slots of a region's partial sums. A node lives in the slot of its left operand.
struct SlotAdd {
  int32_t left, right, narrow;
};

struct DeviceRegion {
  int32_t row_begin, row_end, column_begin, column_end;
  int32_t leaf_begin, leaf_count;      // in the leaf table
  int32_t add_begin, add_count, root;  // in the add table; slot of the result
  int32_t leaf_narrow, racing, race_narrow;
  int32_t tile_rows, tile_columns;  // tiles along each side
  int64_t block_begin;              // first block of the pass that works on this region
  int64_t partial_begin;            // partial sums: [leaf][rows][columns]
};

struct TileShape {
  int rows, columns;
};

struct Pass {
  int64_t row_begin, row_end;
  int64_t blocks, partials;
  Buffer<DeviceRegion> regions;
  int region_count;
};

/// Rows [begin, end) of a call.
struct RowRange {
  int64_t begin, end;

  int64_t count() const { return end - begin; }
};

struct PassList {
  std::vector<Pass> passes;
  int64_t largest_partials = 0;
};

class DevicePlan {
 public:
  /// workspace: bytes of partial sums that a pass may use (a pass has at least one tile row). The allocator outlives
  /// it.
  DevicePlan(const Plan& plan, TileShape tile, size_t workspace, const Allocator& allocator, void* stream);

  const Plan& plan() const { return plan_; }
  TileShape tile() const { return tile_; }
  /// Passes over all rows, made once.
  const PassList& passes() const { return whole_; }
  /// Passes over some rows, made anew: the trees stay those of the whole call.
  PassList passes(RowRange rows, const Allocator& allocator, void* stream) const;
  const int32_t* leaf_chunks() const { return leaf_chunks_.data(); }  // [leaves + 1] offsets into chunks()
  const Chunk* chunks() const { return chunks_.data(); }
  const SlotAdd* adds() const { return adds_.data(); }

 private:
  struct TreeSpan {
    int32_t leaf_begin, add_begin, root;
  };
  void flatten_trees(const Allocator& allocator, void* stream);
  int64_t rows_per_pass() const;
  Pass make_pass(RowRange rows, const Allocator& allocator, void* stream) const;

  Plan plan_;
  TileShape tile_;
  size_t workspace_;
  std::vector<TreeSpan> spans_;
  PassList whole_;
  Buffer<int32_t> leaf_chunks_;
  Buffer<Chunk> chunks_;
  Buffer<SlotAdd> adds_;
};

}  // namespace qf::cuda
