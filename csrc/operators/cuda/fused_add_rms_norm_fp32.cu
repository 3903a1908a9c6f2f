// RMS norm in fp32 behind the addition of the residual.
#include "operators/cuda/device_operators.h"
#include "operators/cuda/norm_fp32.cuh"

namespace qf::cuda {
namespace {

__global__ void __launch_bounds__(kSerialThreads) fused_norm_kernel(FusedAddRmsNormArgs args) {
  const int64_t offset = int64_t{blockIdx.x} * args.columns;
  const float* x = static_cast<const float*>(args.x) + offset;
  const float* residual = static_cast<const float*>(args.residual) + offset;
  float* sum = static_cast<float*>(args.residual_out) + offset;
  const auto read = [&](int64_t i) { return sum[i] = one_nan(__fadd_rn(x[i], residual[i])); };
  const auto again = [&](int64_t i) { return sum[i]; };
  norm_row(read, again, static_cast<const float*>(args.weight), args.columns, args.epsilon,
           static_cast<float*>(args.out) + offset);
}

}  // namespace

void fused_add_rms_norm_fp32(const DeviceOperatorContext& context, const FusedAddRmsNormArgs& args) {
  require_fp32(args.dtype, "fused_add_rms_norm fp32");
  if (args.rows == 0) return;
  const auto stream = static_cast<cudaStream_t>(context.stream);
  fused_norm_kernel<<<static_cast<unsigned>(args.rows), kSerialThreads, 0, stream>>>(args);
  check_launch("fused_add_rms_norm_fp32");
}

}  // namespace qf::cuda
