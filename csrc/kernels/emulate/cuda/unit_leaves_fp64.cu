#include "kernels/emulate/cuda/unit_leaves_grid.cuh"
#include "numerics/cuda/fp64_sum.cuh"

namespace qf::cuda {

void launch_fp64_leaves(const UnitLeaves& call) { launch_grid_leaves<Fp64Sum>(call); }

}  // namespace qf::cuda
