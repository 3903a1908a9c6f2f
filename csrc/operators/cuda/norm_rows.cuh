// The kernel behind vLLM's two RMS norms: the threads of a row are the real kernel's, and so are their sums. Short rows
// share a block.
#pragma once

#include <algorithm>

#include "base/cuda/overlap.cuh"
#include "numerics/cuda_math.h"
#include "operators/cuda/block_sums.cuh"
#include "operators/cuda/device_context.h"
#include "operators/cuda/sfu_choice.cuh"
#include "operators/cuda/stored.cuh"
#include "operators/rms_norm_parts.h"

namespace qf::cuda {

struct NormShape {
  int64_t rows;
  int columns;
  int vectors;  // of the row, N elements each
  int threads;  // that sum a row: thread t takes vectors t, t + threads, ...
  float epsilon;
};

inline NormShape norm_shape(int64_t rows, int64_t columns, int64_t length, float epsilon) {
  const int64_t vectors = columns / length;
  const int64_t threads = std::min<int64_t>(vectors, thread_limit(rows));
  return {rows, static_cast<int>(columns), static_cast<int>(vectors), static_cast<int>(threads), epsilon};
}

/// Threads x rows of a block: a row's threads padded to a power of two or to whole warps.
inline dim3 norm_block(int threads) {
  unsigned lanes = 1;
  while (lanes < static_cast<unsigned>(threads) && lanes < kWarp) lanes *= 2;
  if (threads > kWarp) lanes = static_cast<unsigned>((threads + kWarp - 1) / kWarp * kWarp);
  return {lanes, lanes < 128 ? 128 / lanes : 1};
}

/// CUB's sum over the threads of a row, in each of them.
__device__ __forceinline__ float row_sum(float value) {
  __shared__ float warp_sums[kWarp];
  const int lanes = static_cast<int>(blockDim.x);
  if (lanes <= kWarp) return __shfl_sync(kFullWarp, warp_sum_up(value, lanes), 0, lanes);
  value = warp_sum_up(value, kWarp);
  const int warps = lanes / kWarp, first = static_cast<int>(threadIdx.y) * warps;
  if (threadIdx.x % kWarp == 0) warp_sums[first + threadIdx.x / kWarp] = value;
  __syncthreads();
  float total = warp_sums[first];
  for (int warp = 1; warp < warps; ++warp) total = __fadd_rn(total, warp_sums[first + warp]);
  return total;
}

/// Rows: where a row starts, how a vector is read (once, then again), what it adds to a thread's sum, where results go.
/// kKept vectors of a thread stay in registers; 0: a thread has more of them, and they are read again.
template <class Rows, int N, int kKept, class Sfu>
__global__ void __launch_bounds__(1024) norm_rows(Rows rows, NormShape shape, Sfu sfu) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  const int thread = static_cast<int>(threadIdx.x);
  let_next_kernel_start();
  wait_for_earlier_kernels();
  const bool active = row < shape.rows && thread < shape.threads;
  const int64_t offset = active ? rows.offset(row) : 0;
  const int end = active ? shape.vectors : 0;
  float kept[kKept > 0 ? kKept : 1][N];
  float sum = 0.0f;
  if constexpr (kKept > 0) {
#pragma unroll
    for (int i = 0; i < kKept; ++i) {
      const int vector = thread + i * shape.threads;
      if (vector >= end) continue;
      rows.read(offset + int64_t{vector} * N, kept[i]);
      sum = Rows::add_squares(kept[i], sum);
    }
  } else {
    for (int vector = thread; vector < end; vector += shape.threads) {
      rows.read(offset + int64_t{vector} * N, kept[0]);
      sum = Rows::add_squares(kept[0], sum);
    }
  }
  const float variance = __fdiv_rn(row_sum(sum), static_cast<float>(shape.columns));
  const float scale = cuda_rsqrtf(sfu, __fadd_rn(variance, shape.epsilon));
  if constexpr (kKept > 0) {
#pragma unroll
    for (int i = 0; i < kKept; ++i) {
      const int vector = thread + i * shape.threads;
      if (vector < end) rows.write(offset, vector, kept[i], scale);
    }
  } else {
    for (int vector = thread; vector < end; vector += shape.threads) {
      rows.read_again(offset + int64_t{vector} * N, kept[0]);
      rows.write(offset, vector, kept[0], scale);
    }
  }
}

template <int N, class Rows>
void launch_norm(const DeviceOperatorContext& context, const Rows& rows, const NormShape& shape, const char* name) {
  if (shape.rows == 0) return;
  const dim3 block = norm_block(shape.threads);
  const unsigned grid = static_cast<unsigned>((shape.rows + block.y - 1) / block.y);
  with_sfu(*context.sfu, [&](auto sfu) {
    const auto launch_one = [&](auto kernel) {
      launch(kernel, {dim3(grid), block, 0, context.overlapped}, context.stream, name, rows, shape, sfu);
    };
    using Sfu = decltype(sfu);
    const int per_thread = (shape.vectors + shape.threads - 1) / shape.threads;
    if (N < 8 || per_thread > 4) return launch_one(norm_rows<Rows, N, 0, Sfu>);
    if constexpr (N == 8) {
      if (per_thread == 1) return launch_one(norm_rows<Rows, N, 1, Sfu>);
      launch_one(per_thread == 2 ? norm_rows<Rows, N, 2, Sfu> : norm_rows<Rows, N, 4, Sfu>);
    }
  });
}

/// out = (x * s) * weight, rounded once.
template <class Stored, int N>
__device__ __forceinline__ void write_norm(typename Stored::Word* out, const typename Stored::Word* weight,
                                           bool aligned, float (&x)[N], float scale) {
  float w[N];
  load<Stored>(weight, aligned, w);
#pragma unroll
  for (int i = 0; i < N; ++i) x[i] = __fmul_rn(__fmul_rn(x[i], scale), w[i]);
  store<Stored>(out, aligned, x);
}

}  // namespace qf::cuda
