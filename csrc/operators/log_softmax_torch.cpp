// PyTorch's cunn_SoftMaxForward (for small vocabularies its forms that cache the row) as vLLM runs it on the logits:
// 1,024 threads, vectors of 16 bytes, CUDA's expf and logf. fp16 logits are read as they are, others are widened first.
#include <algorithm>

#include "numerics/cuda_math.h"
#include "operators/block_reduce.h"
#include "operators/elements.h"
#include "operators/log_softmax.h"
#include "operators/softmax_reading.h"
#include "operators/vector_ops.h"

namespace qf {
namespace {

constexpr int kThreads = kSoftmaxThreads;
constexpr int64_t kSmallest = 2048;

/// Sum of exp(x - largest): each thread's over what it reads, then two rounds of warp shuffles.
float exp_sum(const OperatorContext& context, const float* x, float largest, int64_t columns,
              const SoftmaxReading& how) {
  const VectorOps& ops = vector_ops(context.isa);
  const auto scale = scratch(kThreads * how.vector), mantissa = scratch(kThreads * how.vector);
  float partial[kThreads] = {};
  int64_t done = 0;
  const auto read = [&](int64_t end, int64_t vector, int64_t lane) {
    for (int64_t n = 0; done < end; done += n) {
      n = std::min(kThreads * vector, end - done);
      ops.exp_parts(*context.sfu, x + done, largest, n, scale.get(), mantissa.get());
      ops.thread_exp_sums(scale.get(), mantissa.get(), n, vector, static_cast<int>(kThreads - lane), partial + lane);
    }
  };
  read(how.unaligned, 1, how.first_lane);
  read(how.unaligned + how.vectors, how.vector, 0);
  read(columns, 1, 0);
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
    const SoftmaxReading how = softmax_reading(args.dtype, row, args.columns);
    const float log_sum = cuda_logf(exp_sum(context, out, largest, args.columns, how));
    for (int64_t i = 0; i < args.columns; ++i) out[i] = one_nan((out[i] - largest) - log_sum);
  });
}

void log_softmax_torch_notes(const LogSoftmaxArgs& args, Notes& notes) {
  if (args.columns <= kSmallest) notes.push_back("log_softmax: vocabulary up to 2,048 (other kernels in the source)");
  if (args.columns % 8 != 0)
    notes.push_back("log_softmax: vocabulary not a multiple of 8 (rows taken as those of one aligned tensor)");
}

}  // namespace qf
