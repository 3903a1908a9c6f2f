// The k largest of each row of logprobs, a block per row.
#include "base/cuda/check.h"
#include "operators/cuda/device_operators.h"
#include "operators/cuda/select_largest.cuh"

namespace qf::cuda {
namespace {

__global__ void __launch_bounds__(kRowThreads, 2) top_k_rows(TopKArgs args, bool aligned) {
  __shared__ SelectMemory memory;
  const int64_t index = blockIdx.x;
  const StoredRow<StoredFloat> row{args.logprobs + index * args.columns, static_cast<int>(args.columns), aligned};
  uint32_t order = 0;
  row.visit([&](int, int count, const float (&values)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i < count) order = max(order, value_order(values[i]));
    }
  });
  write_largest(row, order, static_cast<int>(args.k), args.ids + index * args.k, args.values + index * args.k, memory);
}

}  // namespace

void top_k_by_value(const DeviceOperatorContext& context, const TopKArgs& args) {
  require(args.k >= 0 && args.k <= args.columns, "top ", args.k, " of ", args.columns, " columns");
  if (args.k == 0 || args.rows == 0) return;
  top_k_rows<<<static_cast<unsigned>(args.rows), kRowThreads, 0, static_cast<cudaStream_t>(context.stream)>>>(
      args, aligned_for(args.logprobs, args.columns * 4, 16));
  check_launch("top_k_by_value");
}

}  // namespace qf::cuda
