#include "kernels/native/marlin_launch.cuh"

namespace qf::cuda {

void prepare_marlin_bf16(const MarlinShape& shape, int shared_bytes) { prepare<Bf16>(shape, shared_bytes); }
void launch_marlin_bf16(const MarlinLaunch& launch_) { launch<Bf16>(launch_); }

}  // namespace qf::cuda
