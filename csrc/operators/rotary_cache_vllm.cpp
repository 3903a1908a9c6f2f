// vLLM 0.21's cache, which torch builds on the GPU: see numerics/rope_cache.h.
#include "operators/rotary_cache.h"
#include "operators/vector_ops.h"

namespace qf {

void rotary_cache_vllm(const OperatorContext& context, const RotaryCacheArgs& args) {
  const VectorOps& ops = vector_ops(context.isa);
  const int dim = static_cast<int>(args.head_size);
  const int half = dim / 2;
  std::vector<float> frequency(static_cast<size_t>(half));
  for (int i = 0; i < half; ++i) {
    frequency[static_cast<size_t>(i)] =
        rope_scaled_frequency(rope_inverse_frequency(*context.sfu, args.theta, dim, i), args.scaling);
  }
  context.pool->run(args.positions, [&](int64_t position) {
    std::vector<float> row(static_cast<size_t>(dim));
    for (int i = 0; i < half; ++i) {
      const float angle = rope_angle(position, frequency[static_cast<size_t>(i)]);
      row[static_cast<size_t>(i)] = cuda_cosf(angle);
      row[static_cast<size_t>(half) + static_cast<size_t>(i)] = cuda_sinf(angle);
    }
    ops.narrow(args.dtype, row.data(), dim, static_cast<uint16_t*>(args.out) + position * dim);
  });
}

void rotary_cache_vllm_notes(const RotaryCacheArgs& args, Notes& notes) {
  if (args.dtype != DType::fp16)
    notes.push_back(std::string("rotary cache: ") + dtype_name(args.dtype) + " storage (source only)");
  if (args.scaling.factor != 1.0f) notes.push_back("rotary cache: Llama 3 scaling of the frequencies (source only)");
  if (args.theta != 1e5f)
    notes.push_back("rotary cache: another theta than 100,000 (CUDA's powf over other arguments)");
  if (args.head_size != 64)
    notes.push_back("rotary cache: head size " + std::to_string(args.head_size) + " (64 recorded)");
}

}  // namespace qf
