#include "operators/cuda/logprobs_torch.h"

#include "base/cuda/check.h"
#include "operators/cuda/select_largest.cuh"
#include "operators/cuda/sfu_choice.cuh"

namespace qf::cuda {
namespace {

/// A row of logits seen as its logprobs.
template <class Stored>
struct LogprobRow {
  static constexpr int kVector = 8;
  StoredRow<Stored> logits;
  RowTotals totals;

  __device__ __forceinline__ float at(int i) const { return totals.logprob(logits.at(i)); }
  template <class Visit>
  __device__ __forceinline__ void visit(const Visit& visit) const {
    logits.visit([&](int first, int count, float (&values)[8]) {
#pragma unroll
      for (int i = 0; i < 8; ++i) values[i] = totals.logprob(values[i]);
      visit(first, count, values);
    });
  }
};

template <class Stored, class Sfu>
__global__ void __launch_bounds__(kRowThreads, 2) top_logprob_rows(TopLogprobsArgs args, bool aligned, Sfu sfu) {
  __shared__ SelectMemory memory;
  __shared__ float warps[kWarp + 1];
  using Word = typename Stored::Word;
  const int64_t index = blockIdx.x;
  const StoredRow<Stored> row{static_cast<const Word*>(args.logits) + index * args.stride,
                              static_cast<int>(args.columns), aligned};
  const float mine = thread_largest(row), largest = block_max(mine, warps);
  const SoftmaxReading how = softmax_reading(args.dtype, index, args.columns);
  const RowTotals totals{largest, cuda_logf(exp_sum(row, how, largest, sfu, warps))};
  if (threadIdx.x == 0) {
    args.totals[2 * index] = totals.largest;
    args.totals[2 * index + 1] = totals.log_sum;
  }
  // logprobs rise with logits, or all of the row's are NaN: so a thread's largest logit has its largest logprob
  const bool has_elements = static_cast<int64_t>(threadIdx.x) * 8 < args.columns;
  const uint32_t order = has_elements ? value_order(totals.logprob(mine)) : 0;
  write_largest(LogprobRow<Stored>{row, totals}, order, static_cast<int>(args.k), args.ids + index * args.k,
                args.values + index * args.k, memory);
}

template <class Stored>
__global__ void gather_logprobs(GatherLogprobsArgs args) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= args.count) return;
  const int64_t row = args.rows[i];
  const RowTotals totals{args.totals[2 * row], args.totals[2 * row + 1]};
  const auto* logits = static_cast<const typename Stored::Word*>(args.logits) + row * args.stride;
  args.out[i] = totals.logprob(Stored::widen(logits[args.ids[i]]));
}

}  // namespace

void top_logprobs_torch(const DeviceOperatorContext& context, const TopLogprobsArgs& args) {
  require(args.k >= 0 && args.k <= args.columns, "top ", args.k, " of ", args.columns, " columns");
  if (args.rows == 0) return;
  const bool aligned = aligned_for(args.logits, args.stride * 2, 16);
  with_half_storage(args.dtype, "log_softmax torch", [&](auto stored) {
    with_sfu(*context.sfu, [&](auto sfu) {
      top_logprob_rows<decltype(stored)>
          <<<static_cast<unsigned>(args.rows), kRowThreads, 0, static_cast<cudaStream_t>(context.stream)>>>(
              args, aligned, sfu);
    });
  });
  check_launch("top_logprobs_torch");
}

void gather_logprobs_torch(const DeviceOperatorContext& context, const GatherLogprobsArgs& args) {
  if (args.count == 0) return;
  constexpr int kThreads = 128;
  const auto grid = static_cast<unsigned>((args.count + kThreads - 1) / kThreads);
  with_half_storage(args.dtype, "log_softmax torch", [&](auto stored) {
    gather_logprobs<decltype(stored)><<<grid, kThreads, 0, static_cast<cudaStream_t>(context.stream)>>>(args);
  });
  check_launch("gather_logprobs_torch");
}

}  // namespace qf::cuda
