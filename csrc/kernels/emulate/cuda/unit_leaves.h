// One launch over the unit leaves of a pass, and the tile shapes that its kernels have.
#pragma once

#include "kernels/emulate/cuda/leaf_job.cuh"
#include "numerics/matrix_unit.h"

namespace qf::cuda {

/// Warps along weights and along rows, tiles per warp along both, chunks in flight.
template <int kWarpsW, int kWarpsR, int kTilesW, int kTilesR, int kStageCount>
struct Layout {
  static constexpr int warps_w = kWarpsW, warps_r = kWarpsR, tiles_w = kTilesW, tiles_r = kTilesR, stages = kStageCount;
  static constexpr int threads = warps_w * warps_r * 32;
  static constexpr int columns = warps_w * tiles_w * 16, rows = warps_r * tiles_r * 8;
};
using OneRow = Layout<4, 1, 1, 1, 6>;   // up to 8 rows
using FewRows = Layout<4, 1, 1, 2, 4>;  // up to 16
using ManyRows = Layout<2, 2, 2, 2, 2>;

struct Operand {
  const uint16_t* value;
  const int16_t* exponent;
  int64_t rows, ld;
};

struct UnitArgs {
  LeafTables tables;
  MatrixUnit unit;
  Operand weight, activations;
  int first_row;  // of the activations
};

struct UnitLeaves {
  UnitArgs args;
  bool bf16, half_output, fresh;
  int64_t blocks;
  void* stream;
};

void launch_native_leaves(const UnitLeaves& call);
void launch_pinned_leaves(const UnitLeaves& call);
void launch_fp64_leaves(const UnitLeaves& call);
void launch_converted_leaves(const UnitLeaves& call);
void launch_definition_leaves(const UnitLeaves& call);

}  // namespace qf::cuda
