// Leaves whose steps are integers on the unit's grid.
#pragma once

#include "kernels/emulate/cuda/unit_leaf_kernel.cuh"
#include "numerics/cuda/grid_step.cuh"
#include "numerics/cuda/scheme.h"

namespace qf::cuda {

template <template <class, int> class Sum, int kProducts>
void launch_grid_steps(const UnitLeaves& call) {
  if (call.bf16) return launch_scheme<GridStep<Bf16, float, kProducts, Sum<Bf16, kProducts>>>(call);
  if (call.half_output) return launch_scheme<GridStep<Fp16, Fp16, kProducts, Sum<Fp16, kProducts>>>(call);
  launch_scheme<GridStep<Fp16, float, kProducts, Sum<Fp16, kProducts>>>(call);
}

template <template <class, int> class Sum>
void launch_grid_leaves(const UnitLeaves& call) {
  const MatrixUnit& unit = call.args.unit;
  require(grid_serves(unit), "no sums on a grid for ", unit.products, " products and ", unit.fraction_bits,
          " fraction bits");
  if (unit.products == 16) return launch_grid_steps<Sum, 16>(call);
  if (unit.products == 8) return launch_grid_steps<Sum, 8>(call);
  launch_grid_steps<Sum, 4>(call);
}

}  // namespace qf::cuda
