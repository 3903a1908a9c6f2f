// vLLM 0.21's fused_add_rms_norm CUDA kernel: the residual's sum is rounded to the storage format before it is squared.
#include <algorithm>

#include "operators/block_reduce.h"
#include "operators/rms_norm.h"
#include "operators/rms_norm_parts.h"
#include "operators/vector_ops.h"

namespace qf {
namespace {

/// Sum of squares of a row: a thread takes vectors of 8, t, t + threads, ...; in other row lengths single elements.
float square_sum(const VectorOps& ops, const float* h, int64_t columns, int limit) {
  const int threads = static_cast<int>(std::min<int64_t>(columns, limit));
  float partial[1024];
  if (columns % 8 == 0) {
    ops.thread_pair_sums(h, columns / 8, threads, partial);
  } else {
    ops.thread_square_sums(h, 1, columns, threads, partial);
  }
  return block_sum_cub(partial, threads);
}

}  // namespace

void fused_add_rms_norm_vllm(const OperatorContext& context, const FusedAddRmsNormArgs& args) {
  const VectorOps& ops = vector_ops(context.isa);
  const auto weight = scratch(args.columns);
  ops.widen(args.dtype, static_cast<const uint16_t*>(args.weight), args.columns, weight.get());
  const int limit = thread_limit(args.rows);
  context.pool->run(args.rows, [&](int64_t row) {
    const int64_t offset = row * args.columns;
    const auto h = scratch(args.columns), residual = scratch(args.columns);
    ops.widen(args.dtype, static_cast<const uint16_t*>(args.x) + offset, args.columns, h.get());
    ops.widen(args.dtype, static_cast<const uint16_t*>(args.residual) + offset, args.columns, residual.get());
    for (int64_t i = 0; i < args.columns; ++i) h[i] += residual[i];
    uint16_t* residual_out = static_cast<uint16_t*>(args.residual_out) + offset;
    ops.narrow(args.dtype, h.get(), args.columns, residual_out);
    ops.widen(args.dtype, residual_out, args.columns, h.get());
    const float total = square_sum(ops, h.get(), args.columns, limit);
    apply_norm(*context.sfu, total, args.columns, args.epsilon, weight.get(), h.get());
    ops.narrow(args.dtype, h.get(), args.columns, static_cast<uint16_t*>(args.out) + offset);
  });
}

void fused_add_rms_norm_vllm_notes(const FusedAddRmsNormArgs& args, Notes& notes) {
  norm_notes("fused_add_rms_norm", args.columns, notes);
}

}  // namespace qf
