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
// An Arithmetic says which k a slice walks, what a code becomes, how a step joins the accumulator, how slices are
// added.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/gemm.h"
#include "kernels/native/slice_rows.cuh"
#include "numerics/cuda/mma.cuh"

namespace qf::cuda {

struct SliceArgs {
  const uint4* codes;
  const uint2* numbers;
  SliceRowArgs rows;
  const uint16_t* bias;  // or null
  uint16_t* out;
  int64_t ldo;
  int n, tiles, groups;
  int group_shift;  // unit >> group_shift = group
  SliceMap map;
};

/// A warp's walk over its slice: T tiles of columns, R tiles of rows, 2 D units at a time, D pairs of them in flight.
template <class Arithmetic, template <int, int> class Rows, int T, int R, int D>
struct SliceWarp {
  static constexpr int kUnits = 2 * D, kPer = Arithmetic::kUnitsPerChunk;
  using RowTiles = Rows<R, kPer>;
  static_assert(kUnits % kPer == 0 && kUnits % RowTiles::kAhead == 0);
  const SliceArgs& args;
  const int slice, lane, units;  // units of whole chunks
  const uint4* codes[T];         // of the current round's first pair
  const uint2* numbers;
  RowTiles rows;
  uint4 code[D][T];
  uint2 number[kUnits][T];
  float sum[T][R][4] = {};

  __device__ SliceWarp(const SliceArgs& a, char* shared)
      : args(a),
        slice(static_cast<int>(threadIdx.x / 32)),
        lane(static_cast<int>(threadIdx.x % 32)),
        units(a.map.full_units(slice)),
        rows(a.rows, slice, lane, shared) {
    const int first_tile = static_cast<int>(blockIdx.x) * T;
    numbers = a.numbers + static_cast<int64_t>(first_tile) * a.groups * 8 + lane / 4;
#pragma unroll
    for (int t = 0; t < T; ++t) {
      codes[t] = a.codes + (static_cast<int64_t>(first_tile + t) * kSlices + slice) * a.map.pairs() * 32 + lane;
    }
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
  /// The products of one unit, whose weights are words 2 half, 2 half + 1; without `whole` of its first step alone.
  __device__ void take(const uint4 (&words)[T], int half, const uint2 (&group_numbers)[T], int i, bool whole = true) {
#pragma unroll
    for (int step = 0; step < 2; ++step) {
      if (step == 1 && !whole) break;
      rows.take(i, step);
#pragma unroll
      for (int t = 0; t < T; ++t) {
        uint32_t a[4];
        typename Arithmetic::Group(group_numbers[t]).weights(word_of(words[t], half * 2 + step), a);
#pragma unroll
        for (int r = 0; r < R; ++r) {
          const uint2 row = rows.at(i, r, step);
          const uint32_t b[2] = {row.x, row.y};
          Arithmetic::join(sum[t][r], a, b);
        }
      }
    }
  }
  __device__ void start() {
#pragma unroll
    for (int d = 0; d < D; ++d) fetch_weights(d, 0);
  }
  /// Asks for the rest of a short slice, as much again as registers hold: it comes nearer while kernels ahead on the
  /// stream still run. (More would be in the way of what these read.)
  __device__ void prefetch_rest() const {
    const int rest = (units + 1) / 2 - D;
    if (lane != 0 || rest <= 0 || rest > D) return;
#pragma unroll
    for (int t = 0; t < T; ++t) prefetch_to_cache(codes[t] + D * 32, rest * 32 * static_cast<int>(sizeof(uint4)));
    if (slice == 0) prefetch_to_cache(numbers, T * args.groups * 8 * static_cast<int>(sizeof(uint2)));
  }
  template <bool kWhole>
  __device__ void round(int first) {
#pragma unroll
    for (int i = 0; i < kUnits; ++i) {
      if (!kWhole && first + i >= units) return;
      constexpr int ahead = RowTiles::kAhead - 1;
      rows.fetch(i + ahead, unit_offset(i + ahead), first + i + ahead < units);
      take(code[i / 2], i % 2, number[i], i);
      if (kWhole && i % 2 == 1) fetch_weights(i / 2 + D, first);
    }
#pragma unroll
    for (int t = 0; t < T; ++t) codes[t] += D * 32;
    rows.next_round(kUnits * kSlices);
  }
  __device__ void walk() {
#pragma unroll
    for (int i = 0; i < RowTiles::kAhead - 1; ++i) rows.fetch(i, unit_offset(i), i < units);
    int first = 0;
    for (; first + kUnits <= units; first += kUnits) round<true>(first);
    if (first < units) round<false>(first);
  }
  /// The slice's piece of what whole chunks leave over: a few units, of which the last may have one step.
  __device__ void walk_rest() {
#pragma unroll 1
    for (int unit = units; unit < args.map.units(slice); ++unit) {
      const int k = args.map.first_k(slice, unit);
      const bool whole = k + 16 < args.map.k;
      uint4 words[T];
      uint2 group_numbers[T];
#pragma unroll
      for (int t = 0; t < T; ++t) {
        const int64_t tile = static_cast<int64_t>(blockIdx.x) * T + t;
        const uint4* from = args.codes + ((tile * kSlices + slice) * args.map.pairs() + unit / 2) * 32 + lane;
        load_once(words[t], from, true);
        if (unit % 2 == 1) words[t].x = words[t].z, words[t].y = words[t].w;
      }
      fetch_numbers(group_numbers, k / kUnit, true);
      rows.fetch_rest(k, whole);
      take(words, 0, group_numbers, 0, whole);
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

/// kRest: whole chunks leave something over.
template <class Arithmetic, template <int, int> class Rows, int T, int R, int D, int kBlocks, bool kRest>
__global__ void __launch_bounds__(kSlices * 32, kBlocks) slice_gemm(const SliceArgs args) {
  extern __shared__ __align__(16) char shared[];
  using Partials = SlicePartials<Arithmetic, T, R>;
  let_next_kernel_start();
  SliceWarp<Arithmetic, Rows, T, R, D> warp(args, shared);
  warp.start();
  warp.prefetch_rest();
  wait_for_earlier_kernels();
  warp.walk();
  if constexpr (kRest) warp.walk_rest();
  if constexpr (Rows<R, 1>::kBytes > 0) __syncthreads();  // the rows' memory becomes the partial sums'
  const Partials partials{reinterpret_cast<typename Arithmetic::Partial*>(shared)};
  partials.store(warp.slice, warp.lane, warp.sum);
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < Partials::kRows * Partials::kColumns; i += kSlices * 32) {
    const int row = i / Partials::kColumns, column = i % Partials::kColumns;
    const int64_t out_row = static_cast<int64_t>(blockIdx.y) * Partials::kRows + row;
    const int out_column = static_cast<int>(blockIdx.x) * Partials::kColumns + column;
    if (out_row >= args.rows.m || out_column >= args.n) continue;
    args.out[out_row * args.ldo + out_column] = Arithmetic::finish(partials.total(row, column), args.bias, out_column);
  }
}

}  // namespace qf::cuda
