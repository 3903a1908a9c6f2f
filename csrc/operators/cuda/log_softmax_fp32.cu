// Log-softmax in fp32, the sum of exponentials in double: see ../log_softmax_fp32.cpp.
#include "base/cuda/check.h"
#include "operators/cuda/block_sums.cuh"
#include "operators/cuda/device_operators.h"
#include "operators/cuda/serial_sum.cuh"
#include "operators/cuda/stored.cuh"
#include "operators/elements.h"
#include "operators/portable_math.h"

namespace qf::cuda {
namespace {

__global__ void __launch_bounds__(kSerialThreads) log_softmax_rows_fp32(LogSoftmaxArgs args) {
  __shared__ double tiles[2 * kSerialTile];
  __shared__ float warps[kWarp];
  const float* x = static_cast<const float*>(args.logits) + int64_t{blockIdx.x} * args.stride;
  float* out = args.out + int64_t{blockIdx.x} * args.columns;
  float largest = -INFINITY;
  for (int64_t i = threadIdx.x; i < args.columns; i += kSerialThreads) largest = fmaxf(largest, x[i]);
  largest = block_max(largest, warps);
  const auto numerator = [&](int64_t i) { return static_cast<double>(portable_exp(__fsub_rn(x[i], largest))); };
  const float log_sum = portable_log(__double2float_rn(serial_sum(args.columns, numerator, tiles)));
  for (int64_t i = threadIdx.x; i < args.columns; i += kSerialThreads) {
    out[i] = one_nan(__fsub_rn(__fsub_rn(x[i], largest), log_sum));
  }
}

}  // namespace

void log_softmax_fp32(const DeviceOperatorContext& context, const LogSoftmaxArgs& args) {
  require_fp32(args.dtype, "log_softmax fp32");
  if (args.rows == 0) return;
  const auto stream = static_cast<cudaStream_t>(context.stream);
  log_softmax_rows_fp32<<<static_cast<unsigned>(args.rows), kSerialThreads, 0, stream>>>(args);
  check_launch("log_softmax_fp32");
}

}  // namespace qf::cuda
