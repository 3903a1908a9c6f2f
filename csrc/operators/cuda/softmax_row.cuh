// Rows of a vocabulary and the pieces of torch's log-softmax over them: a block of 1,024 threads has a row. The order
// of its sum is that of softmax_reading.h; everything else of a row is read as vectors of 16 bytes, thread t those
// numbered t, t + 1024, ...
#pragma once

#include <type_traits>

#include "numerics/cuda_math.h"
#include "operators/cuda/block_sums.cuh"
#include "operators/cuda/stored.cuh"
#include "operators/elements.h"
#include "operators/softmax_reading.h"

namespace qf::cuda {

constexpr int kRowThreads = kSoftmaxThreads;

/// What a row's logprobs are made of: (logit - largest) - log_sum.
struct RowTotals {
  float largest, log_sum;

  __device__ __forceinline__ float logprob(float logit) const {
    return one_nan(__fsub_rn(__fsub_rn(logit, largest), log_sum));
  }
};

/// A row that a kernel only reads.
template <class StoredAs>
struct StoredRow {
  using Stored = StoredAs;
  using Word = typename Stored::Word;
  static constexpr int kVector = 16 / sizeof(Word);
  const Word* words;
  int columns;
  bool aligned;

  __device__ __forceinline__ float at(int i) const { return Stored::widen(words[i]); }

  /// visit(first, count, values[kVector]) for every vector of this thread; count is below kVector only at the row's
  /// end.
  template <class Visit>
  __device__ __forceinline__ void visit(const Visit& visit) const {
    const int whole = columns / kVector, rest = columns % kVector;
    float values[kVector];
    if (aligned) {
#pragma unroll 2
      for (int vector = static_cast<int>(threadIdx.x); vector < whole; vector += kRowThreads) {
        const uint4 bits = __ldg(reinterpret_cast<const uint4*>(words) + vector);
        Vector<Word, kVector> loaded;
        memcpy(&loaded, &bits, sizeof loaded);
#pragma unroll
        for (int i = 0; i < kVector; ++i) values[i] = Stored::widen(loaded.words[i]);
        visit(vector * kVector, kVector, values);
      }
    } else {
      for (int vector = static_cast<int>(threadIdx.x); vector < whole; vector += kRowThreads) {
#pragma unroll
        for (int i = 0; i < kVector; ++i) values[i] = at(vector * kVector + i);
        visit(vector * kVector, kVector, values);
      }
    }
    if (rest != 0 && whole % kRowThreads == static_cast<int>(threadIdx.x)) {
#pragma unroll
      for (int i = 0; i < kVector; ++i) values[i] = i < rest ? at(whole * kVector + i) : 0.0f;
      visit(whole * kVector, rest, values);
    }
  }
};

/// Largest of this thread's elements, -inf for none; NaN passed over.
template <class Row>
__device__ __forceinline__ float thread_largest(const Row& row) {
  float largest = -INFINITY;
  row.visit([&](int, int count, const float (&values)[Row::kVector]) {
#pragma unroll
    for (int i = 0; i < Row::kVector; ++i) {
      if (i < count) largest = fmaxf(largest, values[i]);
    }
  });
  return largest;
}

/// Sum of exp(x - largest): a thread's chain of fma over what it reads, warps by offsets 16 .. 1, one warp over their
/// sums the same way. In every thread. warps: 33 floats.
template <class Stored, class Sfu>
__device__ __forceinline__ float exp_sum(const StoredRow<Stored>& row, const SoftmaxReading& how, float largest,
                                         const Sfu& sfu, float* warps) {
  constexpr int kVector = std::is_same_v<Stored, StoredHalf> ? 8 : 4;  // of softmax_reading, where it is not 1
  const int thread = static_cast<int>(threadIdx.x), first_lane = static_cast<int>(how.first_lane);
  const int begin = static_cast<int>(how.unaligned), end = begin + static_cast<int>(how.vectors);
  float sum = 0.0f;
  const auto add = [&](float x) {
    const ExpParts e = cuda_exp_parts(sfu, __fsub_rn(x, largest));
    sum = fmaf(e.scale, e.mantissa, sum);
  };
  if (thread >= first_lane && thread - first_lane < begin) add(row.at(thread - first_lane));
  const auto* words = row.words + begin;
  const bool aligned = reinterpret_cast<uintptr_t>(words) % (kVector * sizeof(*words)) == 0;
  if (how.vector == kVector) {
#pragma unroll 2
    for (int i = thread * kVector; i < end - begin; i += kRowThreads * kVector) {
      float values[kVector];
      load<Stored, kVector>(words + i, aligned, values);
#pragma unroll
      for (int j = 0; j < kVector; ++j) add(values[j]);
    }
  } else {
    for (int i = thread; i < end - begin; i += kRowThreads) add(Stored::widen(words[i]));
  }
  for (int i = end + thread; i < row.columns; i += kRowThreads) add(row.at(i));
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  sum = warp_sum_down(sum);
  __syncthreads();
  if (lane == 0) warps[warp] = sum;
  __syncthreads();
  if (warp == 0) {
    const float total = warp_sum_down(warps[lane]);
    if (lane == 0) warps[kWarp] = total;
  }
  __syncthreads();
  return warps[kWarp];
}

}  // namespace qf::cuda
