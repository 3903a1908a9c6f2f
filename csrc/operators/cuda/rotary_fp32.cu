// Rotary embedding in fp32: every product and sum rounded.
#include "operators/cuda/device_operators.h"
#include "operators/cuda/rotary_rows.cuh"
#include "operators/elements.h"

namespace qf::cuda {
namespace {

struct RoundedTurn {
  static __device__ float first(float x, float y, float cosine, float sine) {
    return one_nan(__fsub_rn(__fmul_rn(x, cosine), __fmul_rn(y, sine)));
  }
  static __device__ float second(float x, float y, float cosine, float sine) {
    return one_nan(__fadd_rn(__fmul_rn(y, cosine), __fmul_rn(x, sine)));
  }
};

}  // namespace

void rotary_fp32(const DeviceOperatorContext& context, const RotaryArgs& args) {
  require_fp32(args.dtype, "rotary fp32");
  launch_rotary<StoredFloat, RoundedTurn>(context, args, "rotary_fp32");
}

}  // namespace qf::cuda
