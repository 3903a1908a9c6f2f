// silu(gate) * up in fp32: see ../silu_and_mul_fp32.cpp.
#include "base/cuda/check.h"
#include "operators/cuda/device_operators.h"
#include "operators/cuda/stored.cuh"
#include "operators/elements.h"
#include "operators/portable_math.h"

namespace qf::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) gate_rows_fp32(SiluAndMulArgs args, unsigned blocks) {
  const int64_t row = blockIdx.x / blocks;
  const int64_t at = static_cast<int64_t>(blockIdx.x % blocks) * kThreads + threadIdx.x;
  if (at >= args.columns) return;
  const float* x = static_cast<const float*>(args.x) + row * 2 * args.columns + at;
  const float gate = x[0], up = x[args.columns];
  const float e = portable_exp(-fabsf(gate));
  const float sigmoid = __fdiv_rn(gate >= 0.0f ? 1.0f : e, __fadd_rn(1.0f, e));
  static_cast<float*>(args.out)[row * args.columns + at] = one_nan(__fmul_rn(__fmul_rn(gate, sigmoid), up));
}

}  // namespace

void silu_and_mul_fp32(const DeviceOperatorContext& context, const SiluAndMulArgs& args) {
  require_fp32(args.dtype, "silu_and_mul fp32");
  const auto blocks = static_cast<unsigned>((args.columns + kThreads - 1) / kThreads);
  const auto grid = static_cast<unsigned>(args.rows) * blocks;
  if (grid == 0) return;
  gate_rows_fp32<<<grid, kThreads, 0, static_cast<cudaStream_t>(context.stream)>>>(args, blocks);
  check_launch("silu_and_mul_fp32");
}

}  // namespace qf::cuda
