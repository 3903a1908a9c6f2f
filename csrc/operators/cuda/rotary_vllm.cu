// vLLM 0.21's rotary_embedding kernel: one product rounded, the other fused.
#include "operators/cuda/device_operators.h"
#include "operators/cuda/rotary_rows.cuh"
#include "operators/elements.h"

namespace qf::cuda {
namespace {

struct FusedTurn {
  static __device__ float first(float x, float y, float cosine, float sine) { return rotate_first(x, y, cosine, sine); }
  static __device__ float second(float x, float y, float cosine, float sine) {
    return rotate_second(x, y, cosine, sine);
  }
};

}  // namespace

void rotary_vllm(const DeviceOperatorContext& context, const RotaryArgs& args) {
  with_half_storage(args.dtype, "rotary vllm",
                    [&](auto stored) { launch_rotary<decltype(stored), FusedTurn>(context, args, "rotary_vllm"); });
}

}  // namespace qf::cuda
