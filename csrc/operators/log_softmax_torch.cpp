// PyTorch's cunn_SoftMaxForward (for small vocabularies its forms that cache the row) as vLLM runs it on the logits:
// 1,024 threads, vectors of 16 bytes, CUDA's expf and logf. fp16 logits are read as they are, others are widened first.
#include <algorithm>

#include "numerics/cuda_math.h"
#include "operators/block_reduce.h"
#include "operators/log_softmax.h"
#include "operators/vector_ops.h"

namespace qf {
namespace {

constexpr int kThreads = 1024;
constexpr int64_t kSharedBytes = 48 * 1024 - kThreads / kWarp * 4;  // of a row that a block can cache
constexpr int64_t kRegisters = 9;  // rounds of a row of fp32 numbers, one per thread, that registers can hold
constexpr int64_t kSmallest = 2048;

/// How the threads share a row's elements.
struct Reading {
  int64_t vector;      // elements of a vector: 16 bytes
  int64_t unaligned;   // elements before the first ones that vectors read, one per thread
  int64_t first_lane;  // thread of the first of those
  int64_t vectors;     // elements after them that are read as vectors; the rest one per thread and round
};

Reading reading(DType dtype, int64_t row, int64_t columns) {
  const int64_t bytes = dtype == DType::fp16 ? 2 : 4, vector = 16 / bytes, round = kThreads * vector;
  if (bytes == 4 && columns <= kRegisters * kThreads) return {1, 0, 0, columns};
  if (columns % vector == 0 && columns < kSharedBytes / bytes) return {vector, 0, 0, columns};
  const int64_t shift = row * columns % vector;  // rows lie one after the other from an aligned address on
  const int64_t unaligned = shift > 0 ? std::min(columns, kThreads - shift) : 0;
  return {vector, unaligned, shift, (columns - unaligned) / round * round};
}

/// Sum of exp(x - largest): each thread's over what it reads, then two rounds of warp shuffles.
float exp_sum(const OperatorContext& context, const float* x, float largest, int64_t columns, const Reading& how) {
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
    const float log_sum =
        cuda_logf(exp_sum(context, out, largest, args.columns, reading(args.dtype, row, args.columns)));
    for (int64_t i = 0; i < args.columns; ++i) out[i] = (out[i] - largest) - log_sum;
  });
}

void log_softmax_torch_notes(const LogSoftmaxArgs& args, Notes& notes) {
  if (args.columns <= kSmallest) notes.push_back("log_softmax: vocabulary up to 2,048 (other kernels in the source)");
  if (args.columns % 8 != 0)
    notes.push_back("log_softmax: vocabulary not a multiple of 8 (rows taken as those of one aligned tensor)");
}

}  // namespace qf
