// PyTorch's cunn_SoftMaxForward as vLLM runs it on the logits: 1,024 threads, vectors of 8, CUDA's expf and logf.
#include <algorithm>

#include "numerics/cuda_math.h"
#include "operators/block_reduce.h"
#include "operators/elements.h"
#include "operators/log_softmax.h"
#include "operators/vector_ops.h"

namespace qf {
namespace {

constexpr int kThreads = 1024;
constexpr int kVector = 8;

/// Sum of exp(x - largest): each thread's over its vectors t, t + 1024, ..., then two rounds of warp shuffles.
float exp_sum(const OperatorContext& context, const float* x, float largest, int64_t columns) {
  constexpr int64_t kRound = int64_t{kThreads} * kVector;  // what the block reads at once
  const VectorOps& ops = vector_ops(context.isa);
  const auto scale = scratch(kRound), mantissa = scratch(kRound);
  float partial[kThreads] = {};
  for (int64_t first = 0; first < columns; first += kRound) {
    const int64_t n = std::min(kRound, columns - first);
    ops.exp_parts(*context.sfu, x + first, largest, n, scale.get(), mantissa.get());
    ops.thread_exp_sums(scale.get(), mantissa.get(), n, kThreads, partial);
  }
  float warps[kWarp];
  for (int warp = 0; warp < kWarp; ++warp) warps[warp] = warp_sum_descending(partial + warp * kWarp);
  return warp_sum_descending(warps);
}

}  // namespace

void log_softmax_torch(const OperatorContext& context, const LogSoftmaxArgs& args) {
  const VectorOps& ops = vector_ops(context.isa);
  context.pool->run(args.rows, [&](int64_t row) {
    float* out = args.out + row * args.columns;
    ops.widen(args.dtype, static_cast<const uint16_t*>(args.logits) + row * args.stride, args.columns, out);
    const float largest = ops.max(out, args.columns);
    const float log_sum = cuda_logf(exp_sum(context, out, largest, args.columns));
    for (int64_t i = 0; i < args.columns; ++i) out[i] = one_nan((out[i] - largest) - log_sum);
  });
}

void log_softmax_torch_notes(const LogSoftmaxArgs& args, Notes& notes) {
  if (args.dtype != DType::fp16)
    notes.push_back(std::string("log_softmax: ") + dtype_name(args.dtype) + " logits (source only)");
  if (args.columns % kVector != 0)
    notes.push_back("log_softmax: vocabulary not a multiple of 8 (the tail's order is a guess)");
  if (args.columns < kThreads * kVector)
    notes.push_back("log_softmax: vocabulary below 8,192 (smaller thread blocks in the source)");
}

}  // namespace qf
