#include "kernels/emulate/cuda/unit_leaves_grid.cuh"
#include "numerics/cuda/converted_sum.cuh"

namespace qf::cuda {

void launch_converted_leaves(const UnitLeaves& call) { launch_grid_leaves<ConvertedSum>(call); }

}  // namespace qf::cuda
