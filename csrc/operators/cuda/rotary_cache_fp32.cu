// The fp32 cache is rounded from the host's double pow, cos and sin, which a device's differ from in rare last bits: so
// the host computes it, once per model, and the device gets a copy.
#include <vector>

#include "base/thread_pool.h"
#include "operators/cuda/device_operators.h"
#include "operators/cuda/stored.cuh"

namespace qf::cuda {

void rotary_cache_fp32(const DeviceOperatorContext& context, const RotaryCacheArgs& args) {
  require_fp32(args.dtype, "rotary_cache fp32");
  std::vector<float> cache(static_cast<size_t>(args.positions * args.head_size));
  ThreadPool pool(1);
  RotaryCacheArgs host = args;
  host.out = cache.data();
  qf::rotary_cache_fp32({Isa::portable, &pool, nullptr}, host);
  copy_to_device(args.out, cache.data(), cache.size() * sizeof(float), context.stream);
}

}  // namespace qf::cuda
