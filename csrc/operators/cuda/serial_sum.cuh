// A sum in double, one addition after the other, as the fp32 definitions have it: the block computes the addends of the
// next tile while one thread adds those of the last.
#pragma once

#include <cstdint>

#include "operators/block_reduce.h"

namespace qf::cuda {

constexpr int kSerialThreads = 256, kSerialTile = 1024;

/// element(0) + element(1) + ... + element(n - 1), from 0, in every thread of a block of kSerialThreads. element(i) is
/// asked once, by any thread. tiles: shared memory, double[2 * kSerialTile].
template <class Element>
__device__ double serial_sum(int64_t n, const Element& element, double* tiles) {
  const int64_t count = (n + kSerialTile - 1) / kSerialTile;
  double total = 0.0;
  for (int64_t tile = 0; tile <= count; ++tile) {
    if (threadIdx.x >= kWarp) {
      double* to = tiles + (tile % 2) * kSerialTile;
      const int64_t first = tile * kSerialTile, end = n - first < kSerialTile ? n - first : kSerialTile;
      for (int64_t i = threadIdx.x - kWarp; i < end; i += kSerialThreads - kWarp) to[i] = element(first + i);
    } else if (threadIdx.x == 0 && tile > 0) {
      const double* from = tiles + ((tile - 1) % 2) * kSerialTile;
      const int64_t first = (tile - 1) * kSerialTile, end = n - first < kSerialTile ? n - first : kSerialTile;
#pragma unroll 16
      for (int64_t i = 0; i < end; ++i) total = __dadd_rn(total, from[i]);
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) tiles[0] = total;
  __syncthreads();
  return tiles[0];
}

}  // namespace qf::cuda
