// Kernels that fill a pass's partial sums: one block per leaf and tile.
#pragma once

#include "kernels/emulate/cuda/device_plan.h"
#include "kernels/emulate/cuda/expand.h"
#include "numerics/cuda/scheme.h"

namespace qf::cuda {

/// The tile that suits so many rows.
TileShape unit_tile(int64_t rows);
TileShape scalar_tile();

struct LeafCall {
  const DevicePlan* plan;
  const Pass* pass;
  float* partials;
  int64_t first_row;  // of the activations
  void* stream;
};

void run_unit_leaves(const LeafCall& call, Scheme scheme, const UnitOperand& weight, const UnitOperand& activations);
void run_scalar_leaves(const LeafCall& call, const DeviceWeight& scales, const ScalarOperand& weight,
                       const ScalarOperand& activations);

}  // namespace qf::cuda
