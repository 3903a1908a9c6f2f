// vLLM 0.21's fused_add_rms_norm CUDA kernel: the residual's sum is rounded to the storage format before it is squared.
#include <algorithm>
#include <cmath>
#include <vector>

#include "operators/block_reduce.h"
#include "operators/rms_norm.h"
#include "operators/rms_norm_parts.h"
#include "operators/vector_ops.h"

namespace qf {
namespace {

/// Sum of squares of a row: a thread takes vectors t, t + threads, ...; per vector of 8 four pairs, the odd square rounded by itself, then one sum.
float square_sum_fused(const float* h, int64_t columns, int limit, float* partial) {
  const int threads = static_cast<int>(std::min<int64_t>(columns, limit));
  const bool packed = columns % 8 == 0;
  const int64_t length = packed ? 8 : 1;
  for (int thread = 0; thread < threads; ++thread) {
    float sum = 0.0f;
    for (int64_t vector = thread; vector < columns / length; vector += threads) {
      const float* v = h + vector * length;
      if (!packed) {
        sum = std::fma(v[0], v[0], sum);
        continue;
      }
      float pairs = std::fma(v[0], v[0], v[1] * v[1]);
      for (int j = 2; j < 8; j += 2) pairs = pairs + std::fma(v[j], v[j], v[j + 1] * v[j + 1]);
      sum = pairs + sum;
    }
    partial[thread] = sum;
  }
  return block_sum_cub(partial, threads);
}

}  // namespace

void fused_add_rms_norm_vllm(const OperatorContext& context, const FusedAddRmsNormArgs& args) {
  const VectorOps& ops = vector_ops(context.isa);
  const size_t columns = static_cast<size_t>(args.columns);
  std::vector<float> weight(columns);
  ops.widen(args.dtype, static_cast<const uint16_t*>(args.weight), args.columns, weight.data());
  const int limit = thread_limit(args.rows);
  context.pool->run(args.rows, [&](int64_t row) {
    const int64_t offset = row * args.columns;
    std::vector<float> h(columns), residual(columns);
    float partial[1024];
    ops.widen(args.dtype, static_cast<const uint16_t*>(args.x) + offset, args.columns, h.data());
    ops.widen(args.dtype, static_cast<const uint16_t*>(args.residual) + offset, args.columns, residual.data());
    for (size_t i = 0; i < columns; ++i) h[i] += residual[i];
    uint16_t* residual_out = static_cast<uint16_t*>(args.residual_out) + offset;
    ops.narrow(args.dtype, h.data(), args.columns, residual_out);
    ops.widen(args.dtype, residual_out, args.columns, h.data());
    const float total = square_sum_fused(h.data(), args.columns, limit, partial);
    apply_norm(*context.sfu, total, args.columns, args.epsilon, weight.data(), h.data());
    ops.narrow(args.dtype, h.data(), args.columns, static_cast<uint16_t*>(args.out) + offset);
  });
}

void fused_add_rms_norm_vllm_notes(const FusedAddRmsNormArgs& args, Notes& notes) {
  norm_notes("fused_add_rms_norm", args.dtype, args.rows, args.columns, notes);
}

}  // namespace qf
