#include "kernels/native/marlin_launch.cuh"

namespace qf::cuda {

void prepare_marlin_fp16(const MarlinShape& shape, int shared_bytes) { prepare<Fp16>(shape, shared_bytes); }
void launch_marlin_fp16(const MarlinLaunch& launch_) { launch<Fp16>(launch_); }

}  // namespace qf::cuda
