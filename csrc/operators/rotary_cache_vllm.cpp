// vLLM 0.21's cache, which torch builds on the GPU: see numerics/rope_cache.h.
#include <algorithm>
#include <iterator>

#include "operators/rotary_cache.h"
#include "operators/vector_ops.h"

namespace qf {

void rotary_cache_vllm(const OperatorContext& context, const RotaryCacheArgs& args) {
  const VectorOps& ops = vector_ops(context.isa);
  const int64_t dim = args.head_size;
  const std::vector<float> frequencies =
      rope_frequencies(*context.sfu, args.theta, static_cast<int>(dim), args.scaling);
  context.pool->run(args.positions, [&](int64_t position) {
    std::vector<float> row(static_cast<size_t>(dim));
    rope_row(frequencies, position, row.data());
    ops.narrow(args.dtype, row.data(), dim, static_cast<uint16_t*>(args.out) + position * dim);
  });
}

void rotary_cache_vllm_notes(const RotaryCacheArgs& args, Notes& notes) {
  constexpr float kRecorded[] = {1e4f, 1e5f, 5e5f, 1e6f};
  if (std::find(std::begin(kRecorded), std::end(kRecorded), args.theta) == std::end(kRecorded))
    notes.push_back("rotary cache: theta " + std::to_string(args.theta) + " (CUDA's powf over other arguments)");
  if (args.head_size != 64 && args.head_size != 128)
    notes.push_back("rotary cache: head size " + std::to_string(args.head_size) + " (64 and 128 recorded)");
}

}  // namespace qf
