// vLLM 0.21's rms_norm CUDA kernel.
#include <algorithm>
#include <cmath>
#include <vector>

#include "operators/block_reduce.h"
#include "operators/rms_norm.h"
#include "operators/rms_norm_parts.h"
#include "operators/vector_ops.h"

namespace qf {
namespace {

/// Sum of squares of a row as rms_norm adds them: a chain of fma per thread, over its vectors t, t + threads, ...
float square_sum(const float* x, int64_t columns, int limit, float* partial) {
  const int64_t length = vector_length(columns);
  const int64_t vectors = columns / length;
  const int threads = static_cast<int>(std::min<int64_t>(vectors, limit));
  for (int thread = 0; thread < threads; ++thread) {
    float sum = 0.0f;
    for (int64_t vector = thread; vector < vectors; vector += threads) {
      for (int64_t i = vector * length; i < (vector + 1) * length; ++i) sum = std::fma(x[i], x[i], sum);
    }
    partial[thread] = sum;
  }
  return block_sum_cub(partial, threads);
}

}  // namespace

void rms_norm_vllm(const OperatorContext& context, const RmsNormArgs& args) {
  const VectorOps& ops = vector_ops(context.isa);
  std::vector<float> weight(static_cast<size_t>(args.columns));
  ops.widen(args.dtype, static_cast<const uint16_t*>(args.weight), args.columns, weight.data());
  const int limit = thread_limit(args.rows);
  context.pool->run(args.rows, [&](int64_t row) {
    const int64_t offset = row / args.inner_rows * args.stride + row % args.inner_rows * args.inner_stride;
    std::vector<float> x(static_cast<size_t>(args.columns));
    float partial[1024];
    ops.widen(args.dtype, static_cast<const uint16_t*>(args.x) + offset, args.columns, x.data());
    const float total = square_sum(x.data(), args.columns, limit, partial);
    apply_norm(*context.sfu, total, args.columns, args.epsilon, weight.data(), x.data());
    ops.narrow(args.dtype, x.data(), args.columns, static_cast<uint16_t*>(args.out) + offset);
  });
}

void rms_norm_vllm_notes(const RmsNormArgs& args, Notes& notes) {
  norm_notes("rms_norm", args.dtype, args.rows, args.columns, notes);
  if (args.inner_rows != 1) notes.push_back("rms_norm: per-head norm of queries and keys (source only)");
}

}  // namespace qf
