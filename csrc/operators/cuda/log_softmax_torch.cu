// PyTorch's cunn_SoftMaxForward: see ../log_softmax_torch.cpp.
#include "base/cuda/check.h"
#include "operators/cuda/device_operators.h"
#include "operators/cuda/sfu_choice.cuh"
#include "operators/cuda/softmax_row.cuh"

namespace qf::cuda {
namespace {

/// `wide`: rows of out are aligned for 16 bytes. Logprobs are written past the caches, which the row needs.
template <class Stored, class Sfu>
__global__ void __launch_bounds__(kRowThreads, 2)
    log_softmax_rows(LogSoftmaxArgs args, bool aligned, bool wide, Sfu sfu) {
  __shared__ float warps[kWarp + 1];
  using Word = typename Stored::Word;
  const int64_t index = blockIdx.x;
  const StoredRow<Stored> row{static_cast<const Word*>(args.logits) + index * args.stride,
                              static_cast<int>(args.columns), aligned};
  const float largest = block_max(thread_largest(row), warps);
  const SoftmaxReading how = softmax_reading(args.dtype, index, args.columns);
  const RowTotals totals{largest, cuda_logf(exp_sum(row, how, largest, sfu, warps))};
  float* out = args.out + index * args.columns;
  row.visit([&](int first, int count, const float (&values)[8]) {
    if (wide && count == 8) {
      const auto four = [&](int i) {
        return make_float4(totals.logprob(values[i]), totals.logprob(values[i + 1]), totals.logprob(values[i + 2]),
                           totals.logprob(values[i + 3]));
      };
      __stcs(reinterpret_cast<float4*>(out + first), four(0));
      __stcs(reinterpret_cast<float4*>(out + first) + 1, four(4));
      return;
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (i < count) out[first + i] = totals.logprob(values[i]);
    }
  });
}

}  // namespace

void log_softmax_torch(const DeviceOperatorContext& context, const LogSoftmaxArgs& args) {
  if (args.rows == 0) return;
  const bool aligned = aligned_for(args.logits, args.stride * 2, 16),
             wide = aligned_for(args.out, args.columns * 4, 16);
  with_half_storage(args.dtype, "log_softmax torch", [&](auto stored) {
    with_sfu(*context.sfu, [&](auto sfu) {
      log_softmax_rows<decltype(stored)>
          <<<static_cast<unsigned>(args.rows), kRowThreads, 0, static_cast<cudaStream_t>(context.stream)>>>(
              args, aligned, wide, sfu);
    });
  });
  check_launch("log_softmax_torch");
}

}  // namespace qf::cuda
