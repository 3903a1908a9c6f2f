// RMS norm in fp32.
#include "operators/cuda/device_operators.h"
#include "operators/cuda/norm_fp32.cuh"

namespace qf::cuda {
namespace {

__global__ void __launch_bounds__(kSerialThreads) norm_kernel(RmsNormArgs args) {
  const int64_t row = blockIdx.x;
  const int64_t offset = row / args.inner_rows * args.stride + row % args.inner_rows * args.inner_stride;
  const float* x = static_cast<const float*>(args.x) + offset;
  const auto read = [&](int64_t i) { return x[i]; };
  norm_row(read, read, static_cast<const float*>(args.weight), args.columns, args.epsilon,
           static_cast<float*>(args.out) + offset);
}

}  // namespace

void rms_norm_fp32(const DeviceOperatorContext& context, const RmsNormArgs& args) {
  require_fp32(args.dtype, "rms_norm fp32");
  if (args.rows == 0) return;
  norm_kernel<<<static_cast<unsigned>(args.rows), kSerialThreads, 0, static_cast<cudaStream_t>(context.stream)>>>(args);
  check_launch("rms_norm_fp32");
}

}  // namespace qf::cuda
