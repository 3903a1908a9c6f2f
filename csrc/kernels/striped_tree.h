// Marlin's order of additions in one tile of the output: the k-tiles are cut into slices; in a slice, warp rows take 32
// k of every k-tile each.
#pragma once

#include <vector>

#include "kernels/plan.h"

namespace qf {

inline constexpr int64_t kStripedChunk = 32;  // k that a warp row takes of a k-tile

/// Slices [cuts[i], cuts[i + 1]) of k-tiles of `tile_k` (64 or 128: two or four warp rows). Warp rows are added in
/// their block, slices from the largest k down; `hop` is the rounding of a sum that is handed to the next slice.
Tree striped_tree(const std::vector<int64_t>& cuts, int64_t tile_k, Narrow hop);

}  // namespace qf
