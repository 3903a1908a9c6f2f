// GEMMs whose K is cut into eight slices, one accumulator each (awq, tinygemm): a block takes 16 columns of the output,
// or a few times that, over all of K; warp s walks slice s; the eight partial sums meet in shared memory.
//
// Weights are the left operand of the matrix unit (16 columns of the output), activations the right one (8 rows).
// Inside a step of 16 k the order is free (one exact sum), so lane (g, t) of a warp holds k 4 t .. 4 t + 3 of columns g
// and g + 8, and of row g of the activations: 8 consecutive bytes.
//
//   codes    [tile of 16 columns][slice][pair of units][lane][4 words]; a unit is 32 k, a word a lane's part of 16 k:
//            byte 0: k 4 t, 1: k 4 t + 2, 2: k 4 t + 1, 3: k 4 t + 3; low nibble column g, high nibble column g + 8
//   numbers  [tile][group][g][2 words]: the group's numbers of columns g and g + 8, as the arithmetic wants them
//
// An Arithmetic says which k a slice walks, what a code becomes, how a step joins the accumulator, how slices are added.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/gemm.h"
#include "kernels/native/load.cuh"
#include "kernels/native/overlap.cuh"
#include "numerics/cuda/mma.cuh"

namespace qf::cuda {

constexpr int kSlices = 8, kUnit = 32, kTileColumns = 16, kTileRows = 8;

/// The k that slices walk: chunks of `per` units go round the slices; what is left over goes to them in pieces of
/// `piece` k (0: nothing is left over).
struct SliceMap {
  int k, per, piece;

  __host__ __device__ int chunk() const { return per * kUnit; }
  __host__ __device__ int full_units(int slice) const {
    const int chunks = k / chunk();
    return slice < chunks ? (chunks - slice + kSlices - 1) / kSlices * per : 0;
  }
  __host__ __device__ int rest_begin(int slice) const { return k / chunk() * chunk() + slice * piece; }
  __host__ __device__ int units(int slice) const {
    const int begin = rest_begin(slice), end = begin + piece < k ? begin + piece : k;
    return full_units(slice) + (piece > 0 && begin < end ? (end - begin + kUnit - 1) / kUnit : 0);
  }
  __host__ __device__ int first_k(int slice, int unit) const {
    const int full = full_units(slice);
    if (unit >= full) return rest_begin(slice) + (unit - full) * kUnit;
    return ((unit / per * kSlices + slice) * per + unit % per) * kUnit;
  }
  /// Slice 0 has the most.
  __host__ __device__ int pairs() const { return (units(0) + 1) / 2; }
};

struct SliceArgs {
  const uint4* codes;
  const uint2* numbers;
  const uint16_t* activations;
  const uint16_t* bias;  // or null
  uint16_t* out;
  int64_t lda, ldo;
  int m, n, tiles, groups;
  int group_shift;  // unit >> group_shift = group
  SliceMap map;
};

/// A warp's walk over its slice: T tiles of columns, R tiles of rows, 2 D units at a time, D pairs of them in flight.
/// kRest: whole chunks leave something over.
template <class Arithmetic, int T, int R, int D, bool kRest>
struct SliceWarp {
  static constexpr int kUnits = 2 * D, kPer = Arithmetic::kUnitsPerChunk;
  static constexpr int kAhead = R == 1 ? 4 : 2;  // units of activations in registers
  static_assert(kUnits % kPer == 0 && kUnits % kAhead == 0);
  const SliceArgs& args;
  const int slice, lane, units;  // units of whole chunks
  const uint4* codes[T];         // of the current round's first pair
  const uint2* numbers;
  const char* rows[R];  // this lane's part of the current round's first unit
  uint4 code[D][T];
  uint2 number[kUnits][T];
  uint2 x[kAhead][R][2];
  float sum[T][R][4] = {};

  __device__ SliceWarp(const SliceArgs& a)
      : args(a),
        slice(static_cast<int>(threadIdx.x / 32)),
        lane(static_cast<int>(threadIdx.x % 32)),
        units(a.map.full_units(slice)) {
    const int first_tile = static_cast<int>(blockIdx.x) * T;
    numbers = a.numbers + static_cast<int64_t>(first_tile) * a.groups * 8 + lane / 4;
#pragma unroll
    for (int t = 0; t < T; ++t) {
      codes[t] = a.codes + (static_cast<int64_t>(first_tile + t) * kSlices + slice) * a.map.pairs() * 32 + lane;
    }
#pragma unroll
    for (int r = 0; r < R; ++r) rows[r] = row_begin(r) + slice * kPer * kUnit * 2;
  }

  /// Rows beyond the last repeat it; nobody reads their sums.
  __device__ const char* row_begin(int r) const {
    const int row = static_cast<int>(blockIdx.y * R + r) * kTileRows + lane / 4;
    return reinterpret_cast<const char*>(args.activations + min(row, args.m - 1) * args.lda + lane % 4 * 4);
  }

  /// Units of K between the first unit of a round and its unit `i`.
  static __device__ constexpr int unit_offset(int i) { return i / kPer * kPer * kSlices + i % kPer; }

  __device__ void fetch_numbers(uint2 (&to)[T], int unit_of_k, bool wanted) {
#pragma unroll
    for (int t = 0; t < T; ++t) {
      load_pair(to[t], numbers + (t * args.groups + (unit_of_k >> args.group_shift)) * 8, wanted);
    }
  }
  /// Pair d of the round that begins at unit `first`, into slot d % D.
  __device__ void fetch_weights(int d, int first) {
#pragma unroll
    for (int t = 0; t < T; ++t) load_once(code[d % D][t], codes[t] + d * 32, first + 2 * d < units);
#pragma unroll
    for (int i = 2 * d; i < 2 * d + 2; ++i) {
      const int unit_of_k = first * kSlices + slice * kPer + unit_offset(i);
      fetch_numbers(number[i % kUnits], unit_of_k, first + i < units);
    }
  }
  __device__ void fetch_rows(int i, int first) {
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int step = 0; step < 2; ++step) {
        load_pair(x[i % kAhead][r][step], rows[r] + unit_offset(i) * kUnit * 2 + step * 32, first + i < units);
      }
  }
  __device__ void take(const uint4 (&words)[T], int half, const uint2 (&group_numbers)[T], const uint2 (&row)[R][2],
                       bool whole = true) {
#pragma unroll
    for (int t = 0; t < T; ++t) {
      const typename Arithmetic::Group group(group_numbers[t]);
#pragma unroll
      for (int step = 0; step < 2; ++step) {
        if (step == 1 && !whole) break;
        uint32_t a[4];
        group.weights(word_of(words[t], half * 2 + step), a);
#pragma unroll
        for (int r = 0; r < R; ++r) {
          const uint32_t b[2] = {row[r][step].x, row[r][step].y};
          Arithmetic::join(sum[t][r], a, b);
        }
      }
    }
  }
  __device__ void start() {
#pragma unroll
    for (int d = 0; d < D; ++d) fetch_weights(d, 0);
  }
  template <bool kWhole>
  __device__ void round(int first) {
#pragma unroll
    for (int i = 0; i < kUnits; ++i) {
      if (!kWhole && first + i >= units) return;
      fetch_rows(i + kAhead - 1, first);
      take(code[i / 2], i % 2, number[i], x[i % kAhead]);
      if (kWhole && i % 2 == 1) fetch_weights(i / 2 + D, first);
    }
#pragma unroll
    for (int t = 0; t < T; ++t) codes[t] += D * 32;
#pragma unroll
    for (int r = 0; r < R; ++r) rows[r] += kUnits * kSlices * kUnit * 2;
  }
  __device__ void walk() {
#pragma unroll
    for (int i = 0; i < kAhead - 1; ++i) fetch_rows(i, 0);
    int first = 0;
    for (; first + kUnits <= units; first += kUnits) round<true>(first);
    if (first < units) round<false>(first);
    if constexpr (kRest) walk_rest();
  }
  /// The slice's piece of what whole chunks leave over: a few units, of which the last may have one step.
  __device__ void walk_rest() {
    const uint4* code_begin = args.codes + lane;
#pragma unroll 1
    for (int unit = units; unit < args.map.units(slice); ++unit) {
      const int k = args.map.first_k(slice, unit);
      const bool whole = k + 16 < args.map.k;
      uint4 words[T];
      uint2 group_numbers[T], row[R][2];
#pragma unroll
      for (int t = 0; t < T; ++t) {
        const int64_t tile = static_cast<int64_t>(blockIdx.x) * T + t;
        load_once(words[t], code_begin + ((tile * kSlices + slice) * args.map.pairs() + unit / 2) * 32, true);
        if (unit % 2 == 1) words[t].x = words[t].z, words[t].y = words[t].w;
      }
      fetch_numbers(group_numbers, k / kUnit, true);
#pragma unroll
      for (int r = 0; r < R; ++r) {
        const char* at = row_begin(r) + k * 2;
        load_pair(row[r][0], at, true);
        load_pair(row[r][1], at + 32, whole);
      }
      take(words, 0, group_numbers, row, whole);
    }
  }
};

/// [slice][row][column] of partial sums.
template <class Arithmetic, int T, int R>
struct SlicePartials {
  using Partial = typename Arithmetic::Partial;
  static constexpr int kColumns = T * kTileColumns, kRows = R * kTileRows, kLd = kColumns + 16 / sizeof(Partial);
  static constexpr int kBytes = kSlices * kRows * kLd * static_cast<int>(sizeof(Partial));
  Partial* base;

  __device__ Partial* at(int slice, int row, int column) const { return base + (slice * kRows + row) * kLd + column; }
  __device__ void store(int slice, int lane, const float (&sum)[T][R][4]) const {
#pragma unroll
    for (int t = 0; t < T; ++t)
#pragma unroll
      for (int r = 0; r < R; ++r)
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          const int row = r * kTileRows + lane % 4 * 2 + q % 2, column = t * kTileColumns + lane / 4 + q / 2 * 8;
          *at(slice, row, column) = Arithmetic::partial(sum[t][r][q]);
        }
  }
  __device__ float total(int row, int column) const {
    Partial all[kSlices];
#pragma unroll
    for (int s = 0; s < kSlices; ++s) all[s] = *at(s, row, column);
    return Arithmetic::total(all);
  }
};

template <class Arithmetic, int T, int R, int D, int kBlocks, bool kRest>
__global__ void __launch_bounds__(kSlices * 32, kBlocks) slice_gemm(const SliceArgs args) {
  extern __shared__ __align__(16) char shared[];
  using Partials = SlicePartials<Arithmetic, T, R>;
  let_next_kernel_start();
  SliceWarp<Arithmetic, T, R, D, kRest> warp(args);
  warp.start();
  wait_for_earlier_kernels();
  warp.walk();
  const Partials partials{reinterpret_cast<typename Arithmetic::Partial*>(shared)};
  partials.store(warp.slice, warp.lane, warp.sum);
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < Partials::kRows * Partials::kColumns; i += kSlices * 32) {
    const int row = i / Partials::kColumns, column = i % Partials::kColumns;
    const int64_t out_row = static_cast<int64_t>(blockIdx.y) * Partials::kRows + row;
    const int out_column = static_cast<int>(blockIdx.x) * Partials::kColumns + column;
    if (out_row >= args.m || out_column >= args.n) continue;
    args.out[out_row * args.ldo + out_column] = Arithmetic::finish(partials.total(row, column), args.bias, out_column);
  }
}

}  // namespace qf::cuda
