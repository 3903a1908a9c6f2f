// A copy of rows, a block each.
#include "base/cuda/check.h"
#include "operators/cuda/device_operators.h"
#include "operators/cuda/fault_note.cuh"
#include "operators/cuda/stored.cuh"

namespace qf::cuda {
namespace {

constexpr int kThreads = 128;

template <class Unit>
__global__ void copy_rows(const Unit* table, const int64_t* ids, int64_t vocabulary, int64_t units, Unit* out,
                          unsigned long long* fault) {
  const int64_t row = blockIdx.x, id = ids[row];
  const bool known = id >= 0 && id < vocabulary;
  if (!known && threadIdx.x == 0) note_fault(fault, row, id);
  for (int64_t i = threadIdx.x; i < units; i += kThreads) out[row * units + i] = known ? table[id * units + i] : Unit{};
}

}  // namespace

void embedding_copy(const DeviceOperatorContext& context, const EmbeddingArgs& args) {
  if (args.rows == 0) return;
  const int64_t bytes = args.columns * dtype_bytes(args.dtype);
  const auto launch = [&](auto unit) {
    using Unit = decltype(unit);
    const auto grid = static_cast<unsigned>(args.rows);
    copy_rows<<<grid, kThreads, 0, static_cast<cudaStream_t>(context.stream)>>>(
        static_cast<const Unit*>(args.table), args.ids, args.vocabulary, bytes / static_cast<int64_t>(sizeof(Unit)),
        static_cast<Unit*>(args.out), context.faults->slot(Fault::token_id));
    check_launch("embedding_copy");
  };
  if (aligned_for(args.table, bytes, 16) && aligned_for(args.out, bytes, 16)) return launch(uint4{});
  args.dtype == DType::fp32 ? launch(uint32_t{}) : launch(uint16_t{});
}

}  // namespace qf::cuda
