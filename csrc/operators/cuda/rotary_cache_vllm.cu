// vLLM 0.21's cache: see numerics/rope_cache.h. A thread owns one frequency.
#include <algorithm>

#include "base/cuda/check.h"
#include "numerics/rope_cache.h"
#include "operators/cuda/device_operators.h"
#include "operators/cuda/stored.cuh"

namespace qf::cuda {
namespace {

template <class Stored>
__global__ void fill_cache(RotaryCacheArgs args, SfuView sfu) {
  const int dim = static_cast<int>(args.head_size), half = dim / 2;
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= half) return;
  const float frequency = rope_scaled_frequency(rope_inverse_frequency(sfu, args.theta, dim, i), args.scaling);
  auto* out = static_cast<typename Stored::Word*>(args.out);
  for (int64_t position = blockIdx.y * blockDim.y + threadIdx.y; position < args.positions;
       position += gridDim.y * blockDim.y) {
    const float angle = rope_angle(position, frequency);
    out[position * dim + i] = Stored::narrow(cuda_cosf(angle));
    out[position * dim + half + i] = Stored::narrow(cuda_sinf(angle));
  }
}

}  // namespace

void rotary_cache_vllm(const DeviceOperatorContext& context, const RotaryCacheArgs& args) {
  const dim3 block(32, 8);
  const dim3 grid(static_cast<unsigned>((args.head_size / 2 + 31) / 32),
                  static_cast<unsigned>(std::min<int64_t>((args.positions + 7) / 8, 1024)));
  with_half_storage(args.dtype, "rotary_cache vllm", [&](auto stored) {
    fill_cache<decltype(stored)>
        <<<grid, block, 0, static_cast<cudaStream_t>(context.stream)>>>(args, context.sfu->tables());
  });
  check_launch("rotary_cache_vllm");
}

}  // namespace qf::cuda
