#include "kernels/native/marlin_launch.cuh"

namespace qf::cuda {

void prepare_marlin_fp16(const MarlinShape& shape) { prepare<Fp16>(shape); }
void launch_marlin_fp16(const MarlinArgs& args, int row_blocks, cudaStream_t stream) {
  launch<Fp16>(args, row_blocks, stream);
}

}  // namespace qf::cuda
