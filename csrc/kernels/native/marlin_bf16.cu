#include "kernels/native/marlin_launch.cuh"

namespace qf::cuda {

void prepare_marlin_bf16(const MarlinShape& shape) { prepare<Bf16>(shape); }
void launch_marlin_bf16(const MarlinArgs& args, int row_blocks, cudaStream_t stream) {
  launch<Bf16>(args, row_blocks, stream);
}

}  // namespace qf::cuda
