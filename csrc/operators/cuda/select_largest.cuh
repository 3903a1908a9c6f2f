// The k largest of a row by a block, in the order of ../top_k_by_value.cpp, without memory beside the block's own.
//
// Keys are 64 bits: the value's order above, the id's complement below; all differ, and a larger key comes earlier.
// Ranks are written 1,024 at a time. The first ones take a short cut: the k-th largest of the threads' own maxima is a
// bound that few elements reach; those are collected and sorted. Else the bound is found digit by digit over the row.
#pragma once

#include "operators/cuda/softmax_row.cuh"

namespace qf::cuda {

using RankKey = unsigned long long;

struct SelectMemory {
  RankKey keys[kRowThreads];
  unsigned histogram[256];
  RankKey bound;
  unsigned value_bound;
  int count;
};

/// Order of a value as an unsigned number: NaN 0, then -inf .. inf; both zeros alike.
__device__ __forceinline__ uint32_t value_order(float value) {
  if (value != value) return 0;
  const uint32_t bits = float_bits(__fadd_rn(value, 0.0f));  // -0 becomes +0
  return bits ^ (bits >> 31 ? 0xFFFFFFFFu : 0x80000000u);
}
__device__ __forceinline__ RankKey rank_key(float value, int id) {
  return static_cast<RankKey>(value_order(value)) << 32 | ~static_cast<uint32_t>(id);
}

/// Bitonic sort of the first n threads' values, largest in thread 0. n: a power of two; shared: one entry per thread.
template <class Key>
__device__ __forceinline__ Key sort_descending(Key mine, int n, Key* shared) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int size = 2; size <= n; size *= 2) {
    for (int stride = size / 2; stride > 0; stride /= 2) {
      Key other;
      if (stride >= kWarp) {
        __syncthreads();
        shared[thread] = mine;
        __syncthreads();
        other = shared[thread ^ stride];
      } else {
        other = __shfl_xor_sync(kFullWarp, mine, stride);
      }
      const bool descending = (thread & size) == 0, lower = (thread & stride) == 0;
      if ((other > mine) == (lower == descending)) mine = other;
    }
  }
  __syncthreads();
  return mine;
}

/// The rank-th largest key below `end` (rank from 1), by its digits from the top.
template <class Row>
__device__ RankKey key_of_rank(const Row& row, unsigned rank, RankKey end, SelectMemory& memory) {
  RankKey prefix = 0;
  for (int shift = 56; shift >= 0; shift -= 8) {
    if (threadIdx.x < 256) memory.histogram[threadIdx.x] = 0;
    __syncthreads();
    row.visit([&](int first, int count, const float (&values)[Row::kVector]) {
      for (int i = 0; i < count; ++i) {
        const RankKey key = rank_key(values[i], first + i);
        const bool matches = shift == 56 || key >> (shift + 8) == prefix >> (shift + 8);
        if (key < end && matches) atomicAdd(&memory.histogram[(key >> shift) & 255u], 1u);
      }
    });
    __syncthreads();
    unsigned digit = 255;
    for (; digit > 0 && memory.histogram[digit] < rank; --digit) rank -= memory.histogram[digit];
    prefix |= static_cast<RankKey>(digit) << shift;
    __syncthreads();
  }
  return prefix;
}

/// Keys in [begin, end) into memory.keys, as many as fit, in any order; their number in memory.count.
template <class Row>
__device__ __forceinline__ void collect(const Row& row, RankKey begin, RankKey end, SelectMemory& memory) {
  if (threadIdx.x == 0) memory.count = 0;
  __syncthreads();
  row.visit([&](int first, int count, const float (&values)[Row::kVector]) {
#pragma unroll
    for (int i = 0; i < Row::kVector; ++i) {
      if (i >= count || value_order(values[i]) < static_cast<uint32_t>(begin >> 32)) continue;
      const RankKey key = rank_key(values[i], first + i);
      if (key < begin || key >= end) continue;
      const int slot = atomicAdd(&memory.count, 1);
      if (slot < kRowThreads) memory.keys[slot] = key;
    }
  });
  __syncthreads();
}

/// A bound that at least k elements reach: the k-th largest of the threads' maxima. k <= kRowThreads.
__device__ __forceinline__ RankKey shared_bound(uint32_t thread_order, int k, SelectMemory& memory) {
  const uint32_t sorted = sort_descending(thread_order, kRowThreads, reinterpret_cast<uint32_t*>(memory.keys));
  if (static_cast<int>(threadIdx.x) == k - 1) memory.value_bound = sorted;
  __syncthreads();
  return static_cast<RankKey>(memory.value_bound) << 32;
}

/// thread_order: value_order of this thread's largest element, 0 where it has none. value(id): the logprob to write.
template <class Row>
__device__ void write_largest(const Row& row, uint32_t thread_order, int k, int32_t* ids, float* values,
                              SelectMemory& memory) {
  const int thread = static_cast<int>(threadIdx.x);
  RankKey end = ~RankKey{0};
  for (int first = 0; first < k; first += kRowThreads) {
    const int wanted = min(k - first, kRowThreads);
    bool found = false;
    if (first == 0) {
      collect(row, shared_bound(thread_order, wanted, memory), end, memory);
      found = memory.count >= wanted && memory.count <= kRowThreads;
    }
    if (!found) collect(row, key_of_rank(row, static_cast<unsigned>(wanted), end, memory), end, memory);
    const int count = memory.count;
    int n = kWarp;
    while (n < count) n *= 2;
    const RankKey mine = sort_descending(thread < count ? memory.keys[thread] : RankKey{0}, n, memory.keys);
    if (thread < wanted) {
      const int id = static_cast<int>(~static_cast<uint32_t>(mine));
      ids[first + thread] = id;
      values[first + thread] = row.at(id);
    }
    if (thread == wanted - 1) memory.bound = mine;
    __syncthreads();
    end = memory.bound;
  }
}

}  // namespace qf::cuda
