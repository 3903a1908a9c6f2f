#include "operators/cuda/cache_rows.h"

#include "base/cuda/check.h"
#include "operators/cuda/stored.cuh"

namespace qf::cuda {
namespace {

constexpr int kThreads = 128;

/// A block per row, of keys and of values.
template <class Unit>
__global__ void __launch_bounds__(kThreads) store_rows(CacheRowsArgs args, int64_t units, int64_t pitch) {
  const int64_t row = blockIdx.x, to = args.positions[row];
  const bool value = blockIdx.y == 1;
  const Unit* from = static_cast<const Unit*>(value ? args.values : args.keys) + row * pitch;
  Unit* out = static_cast<Unit*>(value ? args.to_values : args.to_keys) + to * units;
  for (int64_t i = threadIdx.x; i < units; i += kThreads) out[i] = from[i];
}

}  // namespace

void store_cache_rows(const DeviceOperatorContext& context, const CacheRowsArgs& args) {
  if (args.rows == 0) return;
  const int64_t word = dtype_bytes(args.dtype), bytes = args.columns * word, pitch = args.stride * word;
  const dim3 grid(static_cast<unsigned>(args.rows), 2);
  const auto launch = [&](auto unit) {
    constexpr auto size = static_cast<int64_t>(sizeof(unit));
    store_rows<decltype(unit)>
        <<<grid, kThreads, 0, static_cast<cudaStream_t>(context.stream)>>>(args, bytes / size, pitch / size);
    check_launch("store_cache_rows");
  };
  bool wide = bytes % 16 == 0;
  for (const void* pointer : {args.keys, args.values}) wide = wide && aligned_for(pointer, pitch, 16);
  for (const void* pointer : {args.to_keys, args.to_values}) wide = wide && aligned_for(pointer, bytes, 16);
  if (wide) return launch(uint4{});
  word == 4 ? launch(uint32_t{}) : launch(uint16_t{});
}

}  // namespace qf::cuda
