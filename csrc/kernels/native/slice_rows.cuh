// The activations of slice_gemm.cuh's warps: lane (g, t) takes k 4 t .. 4 t + 3 of a step, of row g of each tile of
// rows.
#pragma once

#include "base/cuda/overlap.cuh"
#include "kernels/native/load.cuh"
#include "kernels/native/slice_map.h"

namespace qf::cuda {

struct SliceRowArgs {
  const uint16_t* activations;
  int64_t lda;
  int m;
  const uint4* arranged;  // ArrangedRows: see there
  int units;              // of 32 k, of all K
};

/// Few rows: straight from memory into registers, kAhead units at a time. Rows beyond the last repeat it; nobody reads
/// their sums.
template <int R, int kPer>
class PlainRows {
 public:
  static constexpr int kAhead = R == 1 ? 4 : 2, kBytes = 0;

  __device__ PlainRows(const SliceRowArgs& args, int slice, int lane, char*) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const int row = static_cast<int>(blockIdx.y * R + r) * kTileRows + lane / 4;
      begin_[r] = reinterpret_cast<const char*>(args.activations + min(row, args.m - 1) * args.lda + lane % 4 * 4);
      rows_[r] = begin_[r] + slice * kPer * kUnit * 2;
    }
  }
  /// Unit i of the round, `offset` units of K after its first.
  __device__ void fetch(int i, int offset, bool wanted) {
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int step = 0; step < 2; ++step) {
        load_pair(x_[i % kAhead][r][step], rows_[r] + (offset * 2 + step) * 32, wanted);
      }
  }
  __device__ void take(int, int) {}
  __device__ uint2 at(int i, int r, int step) const { return x_[i % kAhead][r][step]; }
  __device__ void next_round(int units) {
#pragma unroll
    for (int r = 0; r < R; ++r) rows_[r] += units * kUnit * 2;
  }
  /// 32 k anywhere, of which the second half may not exist, as unit 0.
  __device__ void fetch_rest(int k, bool whole) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
      load_pair(x_[0][r][0], begin_[r] + k * 2, true);
      load_pair(x_[0][r][1], begin_[r] + k * 2 + 32, whole);
    }
  }

 private:
  const char *begin_[R], *rows_[R];
  uint2 x_[kAhead][R][2];
};

/// Many rows: arranged in memory beforehand as [rows of a block][unit][tile of rows][lane] of 16 bytes, the lane's
/// parts of both steps, so that a warp copies whole lines; kAhead units wait in shared memory, where each lane reads
/// what it has copied itself.
template <int R, int kPer>
class ArrangedRows {
 public:
  static constexpr int kAhead = R == 8 ? 2 : 4, kUnitBytes = R * 512, kBytes = kSlices * kAhead * kUnitBytes;

  __device__ ArrangedRows(const SliceRowArgs& args, int slice, int lane, char* shared)
      : rows_(args.arranged + ((static_cast<int64_t>(blockIdx.y) * args.units + slice * kPer) * R) * 32 + lane),
        own_(shared + slice * kAhead * kUnitBytes + lane * 16) {}
  __device__ void fetch(int i, int offset, bool wanted) {
    if (wanted) {
#pragma unroll
      for (int r = 0; r < R; ++r) {
        copy_to_shared(own_ + i % kAhead * kUnitBytes + r * 512, rows_ + (offset * R + r) * 32, 16);
      }
    }
    asm volatile("cp.async.commit_group;");
  }
  /// A step of unit i leaves shared memory; all but the kAhead - 1 newest fetches are complete.
  __device__ void take(int i, int step) {
    if (step == 0) asm volatile("cp.async.wait_group %0;" ::"n"(kAhead - 1) : "memory");
#pragma unroll
    for (int r = 0; r < R; ++r) {
      x_[r] = *reinterpret_cast<const uint2*>(own_ + i % kAhead * kUnitBytes + r * 512 + step * 8);
    }
  }
  __device__ uint2 at(int, int r, int) const { return x_[r]; }
  __device__ void next_round(int units) { rows_ += static_cast<int64_t>(units) * R * 32; }

 private:
  const uint4* rows_;
  char* own_;
  uint2 x_[R];
};

/// Writes what ArrangedRows<R> reads: zeros beyond the last row and beyond K. A thread per 16 bytes.
template <int R>
__global__ void arrange_rows(const uint16_t* activations, int64_t lda, int m, int k, int units, int64_t count,
                             uint4* out) {
  let_next_kernel_start();
  wait_for_earlier_kernels();
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i >= count) return;
  const int lane = static_cast<int>(i % 32), r = static_cast<int>(i / 32 % R),
            unit = static_cast<int>(i / 32 / R % units);
  const int row = static_cast<int>(i / 32 / R / units * R + r) * kTileRows + lane / 4;
  const int first = unit * kUnit + lane % 4 * 4;
  uint2 halves[2] = {};
#pragma unroll
  for (int step = 0; step < 2; ++step) {
    const uint16_t* from = activations + row * lda + first + step * 16;
    load_pair(halves[step], from, row < m && first + step * 16 < k);
  }
  out[i] = make_uint4(halves[0].x, halves[0].y, halves[1].x, halves[1].y);
}

}  // namespace qf::cuda
