// How the 1,024 threads of torch's softmax kernels share a row: which elements a thread adds, in which order.
#pragma once
// nvcc: x[0] = static_cast<float>(qf::softmax_reading(qf::DType::fp16, 1, 2).vectors);

#include "operators/block_reduce.h"
#include "operators/context.h"

namespace qf {

constexpr int kSoftmaxThreads = 1024;

/// Three stretches of a row: `unaligned` elements, thread first_lane + i the i-th; `vectors` elements, thread t their
/// vectors t, t + 1024, ...; the rest, thread t its elements t, t + 1024, ...
struct SoftmaxReading {
  int64_t vector;     // elements of a vector: 16 bytes of what the kernel reads
  int64_t unaligned;  // at most one per thread
  int64_t first_lane;
  int64_t vectors;  // a multiple of `vector`
};

/// fp16 logits are read as they are, bf16 ones widened to fp32 first.
QF_HD inline SoftmaxReading softmax_reading(DType dtype, int64_t row, int64_t columns) {
  constexpr int64_t kSharedBytes = 48 * 1024 - kSoftmaxThreads / kWarp * 4;  // of a row that a block can cache
  constexpr int64_t kRegisters = 9;  // rounds of a row of fp32 numbers, one per thread, that registers can hold
  const int64_t bytes = dtype == DType::fp16 ? 2 : 4, vector = 16 / bytes, round = kSoftmaxThreads * vector;
  if (bytes == 4 && columns <= kRegisters * kSoftmaxThreads) return {1, 0, 0, columns};
  if (columns % vector == 0 && columns < kSharedBytes / bytes) return {vector, 0, 0, columns};
  const int64_t shift = row * columns % vector;  // rows lie one after the other from an aligned address on
  const int64_t room = kSoftmaxThreads - shift;
  const int64_t unaligned = shift == 0 ? 0 : columns < room ? columns : room;
  return {vector, unaligned, shift, (columns - unaligned) / round * round};
}

}  // namespace qf
