// What one block of a leaf kernel works on.
#pragma once

#include "kernels/emulate/cuda/device_plan.h"

namespace qf::cuda {

struct LeafTables {
  const DeviceRegion* regions;
  int region_count;
  const int32_t* leaf_chunks;
  const Chunk* chunks;
  TileShape tile;
  float* partials;
};

inline LeafTables leaf_tables(const DevicePlan& plan, const Pass& pass, float* partials) {
  return {pass.regions.data(), pass.region_count, plan.leaf_chunks(), plan.chunks(), plan.tile(), partials};
}

struct LeafJob {
  int row, column;          // of the tile's first output
  int row_end, column_end;  // of the region
  const Chunk *chunk, *chunk_end;
  float* partials;  // of the region's leaf: [rows][columns], origin at the region's first output
  int row_origin, column_origin, ld;

  __device__ void store(int r, int c, float value) const {
    if (r < row_end && c < column_end) partials[static_cast<int64_t>(r - row_origin) * ld + c - column_origin] = value;
  }
};

__device__ inline LeafJob find_job(const LeafTables& tables, int64_t block) {
  int low = 0, high = tables.region_count - 1;
  while (low < high) {  // the last region that begins at or before the block
    const int middle = (low + high + 1) / 2;
    if (tables.regions[middle].block_begin <= block)
      low = middle;
    else
      high = middle - 1;
  }
  const DeviceRegion& region = tables.regions[low];
  const int64_t local = block - region.block_begin;
  // leaves outermost: neighbouring blocks share weights or activations
  const int64_t tiles = static_cast<int64_t>(region.tile_rows) * region.tile_columns;
  const int leaf = static_cast<int>(local / tiles);
  const int tile_row = static_cast<int>(local % tiles % region.tile_rows);
  const int tile_column = static_cast<int>(local % tiles / region.tile_rows);
  const int rows = region.row_end - region.row_begin, columns = region.column_end - region.column_begin;
  const int32_t* range = tables.leaf_chunks + region.leaf_begin + leaf;
  return {region.row_begin + tile_row * tables.tile.rows,
          region.column_begin + tile_column * tables.tile.columns,
          region.row_end,
          region.column_end,
          tables.chunks + range[0],
          tables.chunks + range[1],
          tables.partials + region.partial_begin + static_cast<int64_t>(leaf) * rows * columns,
          region.row_begin,
          region.column_begin,
          columns};
}

}  // namespace qf::cuda
