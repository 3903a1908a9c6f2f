#include "kernels/emulate/cuda/device_plan.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace qf::cuda {
namespace {

constexpr int32_t kChunk = 32;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

void append_chunks(const Leaf& leaf, std::vector<Chunk>& chunks) {
  for (const KWalk& walk : leaf.walks) {
    for (int64_t i = 0; i < walk.count; ++i) {
      const int64_t begin = walk.start + i * walk.stride, end = begin + walk.length;
      for (int64_t k = begin; k < end; k += kChunk) {
        const int64_t length = std::min<int64_t>(kChunk, end - k);
        chunks.push_back({static_cast<int32_t>(k), static_cast<int32_t>(length)});
      }
    }
  }
}

/// Appends the tree's additions; returns the slot of its root.
int32_t append_adds(const Plan& plan, const Tree& tree, std::vector<SlotAdd>& adds) {
  std::vector<int32_t> slot(tree.leaves.size());
  std::iota(slot.begin(), slot.end(), 0);
  std::vector<bool> used(tree.leaves.size() + tree.adds.size(), false);
  for (const Add& add : tree.adds) {
    const auto left = static_cast<size_t>(add.left), right = static_cast<size_t>(add.right);
    require(!used[left] && !used[right] && left != right, plan.kernel, ": a partial sum is added twice");
    used[left] = used[right] = true;
    adds.push_back({slot[left], slot[right], static_cast<int32_t>(add.narrow)});
    slot.push_back(slot[left]);
  }
  return slot.back();
}

}  // namespace

DevicePlan::DevicePlan(const Plan& plan, TileShape tile, size_t workspace, const Allocator& allocator, void* stream)
    : plan_(plan), tile_(tile), workspace_(workspace) {
  require(plan.m > 0 && plan.m < (int64_t{1} << 30) && plan.n < (int64_t{1} << 30) && plan.k < (int64_t{1} << 30),
          plan.kernel, ": ", plan.m, " x ", plan.n, " x ", plan.k, " is too large for the CUDA emulator");
  flatten_trees(allocator, stream);
  whole_ = passes({0, plan.m}, allocator, stream);
}

void DevicePlan::flatten_trees(const Allocator& allocator, void* stream) {
  std::vector<int32_t> offsets{0};
  std::vector<Chunk> chunks;
  std::vector<SlotAdd> adds;
  for (const Tree& tree : plan_.trees) {
    const auto first_leaf = static_cast<int32_t>(offsets.size()) - 1, first_add = static_cast<int32_t>(adds.size());
    spans_.push_back({first_leaf, first_add, append_adds(plan_, tree, adds)});
    for (const Leaf& leaf : tree.leaves) {
      append_chunks(leaf, chunks);
      offsets.push_back(static_cast<int32_t>(chunks.size()));
    }
  }
  leaf_chunks_ = upload(allocator, offsets.data(), offsets.size(), stream);
  chunks_ = upload(allocator, chunks.data(), chunks.size(), stream);
  adds_ = upload(allocator, adds.data(), adds.size(), stream);
}

int64_t DevicePlan::rows_per_pass() const {
  size_t leaves = 1;
  for (const Tree& tree : plan_.trees) leaves = std::max(leaves, tree.leaves.size());
  const int64_t row_bytes = static_cast<int64_t>(leaves * sizeof(float)) * plan_.n;
  const int64_t tiles = static_cast<int64_t>(workspace_) / row_bytes / tile_.rows;
  return std::max<int64_t>(1, tiles) * tile_.rows;
}

PassList DevicePlan::passes(RowRange rows, const Allocator& allocator, void* stream) const {
  PassList out;
  const int64_t step = rows_per_pass();
  for (int64_t begin = rows.begin; begin < rows.end; begin += step) {
    out.passes.push_back(make_pass({begin, std::min(rows.end, begin + step)}, allocator, stream));
    out.largest_partials = std::max(out.largest_partials, out.passes.back().partials);
  }
  return out;
}

Pass DevicePlan::make_pass(RowRange rows, const Allocator& allocator, void* stream) const {
  std::vector<DeviceRegion> regions;
  int64_t blocks = 0, partials = 0;
  for (const Region& region : plan_.regions) {
    const int64_t r0 = std::max(region.row_begin, rows.begin), r1 = std::min(region.row_end, rows.end);
    if (r0 >= r1) continue;
    const Tree& tree = plan_.trees[static_cast<size_t>(region.tree)];
    const TreeSpan span = spans_[static_cast<size_t>(region.tree)];
    const int64_t columns = region.column_end - region.column_begin;
    const int64_t tile_rows = ceil_div(r1 - r0, tile_.rows), tile_columns = ceil_div(columns, tile_.columns);
    const int64_t leaves = static_cast<int64_t>(tree.leaves.size());
    regions.push_back({.row_begin = static_cast<int32_t>(r0),
                       .row_end = static_cast<int32_t>(r1),
                       .column_begin = static_cast<int32_t>(region.column_begin),
                       .column_end = static_cast<int32_t>(region.column_end),
                       .leaf_begin = span.leaf_begin,
                       .leaf_count = static_cast<int32_t>(leaves),
                       .add_begin = span.add_begin,
                       .add_count = static_cast<int32_t>(tree.adds.size()),
                       .root = span.root,
                       .leaf_narrow = static_cast<int32_t>(tree.leaf_narrow),
                       .racing = tree.racing,
                       .race_narrow = static_cast<int32_t>(tree.race_narrow),
                       .tile_rows = static_cast<int32_t>(tile_rows),
                       .tile_columns = static_cast<int32_t>(tile_columns),
                       .block_begin = blocks,
                       .partial_begin = partials});
    blocks += tile_rows * tile_columns * leaves;
    partials += leaves * (r1 - r0) * columns;
  }
  const int count = static_cast<int>(regions.size());
  return {rows.begin, rows.end, blocks, partials, upload(allocator, regions.data(), regions.size(), stream), count};
}

}  // namespace qf::cuda
