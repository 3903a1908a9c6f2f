// vLLM 0.21's rms_norm CUDA kernel.
#include <algorithm>
#include <numeric>

#include "operators/block_reduce.h"
#include "operators/rms_norm.h"
#include "operators/rms_norm_parts.h"
#include "operators/vector_ops.h"

namespace qf {
namespace {

/// Elements a thread reads at once: 16 bytes where the row length allows.
int64_t vector_length(int64_t columns) { return std::gcd<int64_t>(8, columns); }

/// Sum of squares of a row: a chain of fma per thread, over its vectors t, t + threads, ...
float square_sum(const VectorOps& ops, const float* x, int64_t columns, int limit) {
  const int64_t length = vector_length(columns), vectors = columns / length;
  const int threads = static_cast<int>(std::min<int64_t>(vectors, limit));
  float partial[1024];
  ops.thread_square_sums(x, length, vectors, threads, partial);
  return block_sum_cub(partial, threads);
}

}  // namespace

void rms_norm_vllm(const OperatorContext& context, const RmsNormArgs& args) {
  const VectorOps& ops = vector_ops(context.isa);
  const auto weight = scratch(args.columns);
  ops.widen(args.dtype, static_cast<const uint16_t*>(args.weight), args.columns, weight.get());
  const int limit = thread_limit(args.rows);
  context.pool->run(args.rows, [&](int64_t row) {
    const int64_t offset = row / args.inner_rows * args.stride + row % args.inner_rows * args.inner_stride;
    const auto x = scratch(args.columns);
    ops.widen(args.dtype, static_cast<const uint16_t*>(args.x) + offset, args.columns, x.get());
    const float total = square_sum(ops, x.get(), args.columns, limit);
    apply_norm(*context.sfu, total, args.columns, args.epsilon, weight.get(), x.get());
    ops.narrow(args.dtype, x.get(), args.columns, static_cast<uint16_t*>(args.out) + offset);
  });
}

void rms_norm_vllm_notes(const RmsNormArgs& args, Notes& notes) { norm_notes("rms_norm", args.columns, notes); }

}  // namespace qf
