// exllama up to 50 rows: chains of four fp16 FMAs, scaled into fp32 sums over 128 k (a leaf), leaves added in fp16.
//
// A block takes 32 columns over all of K. Eight lanes share a leaf, four columns each, so that an activation that a lane
// loads meets four weights; a warp walks four leaves (a quad) at a time, the block's eight warps go round the quads.
// The leaves' sums meet in shared memory, where they are added in the order of the plan.
//
//   codes    [tile of 32 columns][quad of leaves][octet of k][leaf in quad][lane of 8][4 words]: a word is eight k of one
//            column: nibbles 0, 4: k 0, 1; 1, 5: k 2, 3; 2, 6: k 4, 5; 3, 7: k 6, 7. Beyond K: zeros
//   numbers  [tile][group][lane of 8][4 words]: scales of columns 0, 1; of 2, 3; 1024 + z of 0, 1; of 2, 3
#pragma once

#include <cuda_fp16.h>

#include "kernels/emulate/race_order.h"
#include "kernels/native/load.cuh"
#include "kernels/native/overlap.cuh"

namespace qf::cuda {

constexpr int kLeafK = 128, kOctets = kLeafK / 8, kQuad = 4, kQuadWarps = 8, kQuadColumns = 32;

struct ExllamaArgs {
  const uint4* codes;
  const uint4* numbers;
  const uint16_t* activations;
  const uint16_t* bias;  // or null
  uint16_t* out;
  int64_t lda, ldo;
  int m, n, k, leaves, groups;
  int octet_shift;  // octet of K >> octet_shift = group
  bool deterministic;
  uint64_t seed;
};

/// Columns of one lane: what the group holds of them.
struct QuadGroup {
  float scale[4];
  __half2 zero[4], shifted_zero[4];  // 1024 + z, -(64 + z)

  __device__ void enter(const uint4& numbers, bool exists) {
    const uint32_t words[4] = {numbers.x, numbers.y, numbers.z, numbers.w};
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const __half2 scales = *reinterpret_cast<const __half2*>(&words[c / 2]);
      const __half2 zeros = *reinterpret_cast<const __half2*>(&words[2 + c / 2]);
      scale[c] = exists ? (c % 2 == 0 ? __low2float(scales) : __high2float(scales)) : 0.0f;
      zero[c] = c % 2 == 0 ? __low2half2(zeros) : __high2half2(zeros);
      shifted_zero[c] = __hsub2(__float2half2_rn(960.0f), zero[c]);
    }
  }
  /// q - z of eight k, as pairs. A nibble in the low bits of 0x6400 is 1024 + q; four bits higher it is 1024 + 16 q, of
  /// which a sixteenth is 64 + q. The differences are exact.
  __device__ void weights(uint32_t word, int c, __half2 (&w)[4]) const {
    const __half2 sixteenth = __float2half2_rn(0.0625f);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint32_t bits = word >> 8 * i;
      const uint32_t low = nibbles<0x000F000F, 0x64006400>(bits), high = nibbles<0x00F000F0, 0x64006400>(bits);
      w[2 * i] = __hsub2(*reinterpret_cast<const __half2*>(&low), zero[c]);
      w[2 * i + 1] = __hfma2(*reinterpret_cast<const __half2*>(&high), sixteenth, shifted_zero[c]);
    }
  }
};

/// A warp's walk over its quads; R rows, D octets of weights in flight.
template <int R, int D>
struct QuadWarp {
  static_assert(kOctets % D == 0);
  const ExllamaArgs& args;
  const int warp, leaf_in_quad, lane, quads;
  const uint4* codes;
  const uint4* numbers;
  uint32_t rows[R];  // where they begin
  uint4 code[D], next_numbers;
  QuadGroup group;
  float sum[R][4];

  __device__ explicit QuadWarp(const ExllamaArgs& a)
      : args(a),
        warp(static_cast<int>(threadIdx.x / 32)),
        leaf_in_quad(static_cast<int>(threadIdx.x % 32 / 8)),
        lane(static_cast<int>(threadIdx.x % 8)),
        quads((a.leaves + kQuad - 1) / kQuad) {
    codes = a.codes + (static_cast<int64_t>(blockIdx.x) * quads + warp) * kOctets * 32 + threadIdx.x % 32;
    numbers = a.numbers + static_cast<int64_t>(blockIdx.x) * a.groups * 8 + lane;
#pragma unroll
    for (int r = 0; r < R; ++r) {  // rows beyond the last repeat it; nobody reads their sums
      rows[r] = static_cast<uint32_t>(min(static_cast<int>(blockIdx.y) * R + r, a.m - 1) * a.lda);
    }
  }
  __device__ int leaf(int quad) const { return quad * kQuad + leaf_in_quad; }

  __device__ void fetch_code(int slot, int quad, int octet) {
    const int q = octet < kOctets ? quad : quad + kQuadWarps;
    load_once(code[slot], codes + ((q - warp) * kOctets + octet % kOctets) * 32, q < quads);
  }
  /// Octet `octet` of the leaf is the first of a group, and the next group is fetched.
  __device__ void enter_group(int quad, int octet, int step) {
    group.enter(next_numbers, leaf(quad) * kLeafK + octet * 8 < args.k);
    fetch_numbers(octet + step < kOctets ? quad : quad + kQuadWarps, (octet + step) % kOctets);
  }
  __device__ void fetch_numbers(int quad, int octet) {
    const int at = leaf(quad) * kOctets + octet;
    load_four(next_numbers, numbers + (at >> args.octet_shift) * 8, at * 8 < args.k);
  }
  __device__ void take(const uint4& words, int k) {
    const bool exists = k < args.k;
    uint4 x[R];
#pragma unroll
    for (int r = 0; r < R; ++r) {
      x[r] = {};
      load_four(x[r], args.activations + (rows[r] + k), exists);
    }
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      __half2 w[4];
      group.weights(word_of(words, c), c, w);
#pragma unroll
      for (int r = 0; r < R; ++r) {
        __half2 chain = __float2half2_rn(0.0f);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const uint32_t pair = word_of(x[r], i);
          chain = __hfma2(w[i], *reinterpret_cast<const __half2*>(&pair), chain);
        }
        sum[r][c] = __fmaf_rn(__fadd_rn(__low2float(chain), __high2float(chain)), group.scale[c], sum[r][c]);
      }
    }
  }
  __device__ void start() {
    next_numbers = {};
    fetch_numbers(warp, 0);
#pragma unroll
    for (int d = 0; d < D; ++d) fetch_code(d, warp, d);
  }
  template <class Store>
  __device__ void walk(Store store) {
    const int step = min(kOctets, 1 << min(args.octet_shift, 4));  // octets of a group inside a leaf
    for (int quad = warp; quad < quads; quad += kQuadWarps) {
#pragma unroll
      for (int r = 0; r < R; ++r)
#pragma unroll
        for (int c = 0; c < 4; ++c) sum[r][c] = 0.0f;
#pragma unroll 1
      for (int first = 0; first < kOctets; first += D) {
#pragma unroll
        for (int d = 0; d < D; ++d) {
          const int octet = first + d;
          if (octet % step == 0) enter_group(quad, octet, step);
          take(code[d], leaf(quad) * kLeafK + octet * 8);
          fetch_code(d, quad, octet + D);
        }
      }
      if (leaf(quad) < args.leaves) store(leaf(quad));
    }
  }
};

/// Shared memory: [leaf][row][column] partial sums, then [row][parity][leaf] orders of a race.
template <int R>
struct QuadShared {
  __half* partials;
  int16_t* orders;
  int leaves;

  __device__ QuadShared(char* base, int count)
      : partials(reinterpret_cast<__half*>(base)),
        orders(reinterpret_cast<int16_t*>(base + count * R * kQuadColumns * 2)),
        leaves(count) {}
  static int bytes(int leaves, bool racing) { return leaves * R * (kQuadColumns * 2 + (racing ? 2 * 2 : 0)); }
  __device__ __half* at(int leaf, int row, int column) const {
    return partials + (leaf * R + row) * kQuadColumns + column;
  }
  __device__ int16_t* order(int row, int parity) const { return orders + (row * 2 + parity) * leaves; }
};

/// The plan's race: +0, then every leaf in its order, each sum rounded to fp16.
template <int R>
__device__ float race_total(const QuadShared<R>& shared, int row, int column, const int16_t* order) {
  __half sum = __float2half_rn(0.0f);
#pragma unroll 8
  for (int i = 0; i < shared.leaves; ++i) sum = __hadd(sum, *shared.at(order == nullptr ? i : order[i], row, column));
  return __half2float(sum);
}

template <int R, int D, int kBlocks>
__global__ void __launch_bounds__(kQuadWarps * 32, kBlocks) exllama_gemm(const ExllamaArgs args) {
  extern __shared__ __align__(16) char memory[];
  const QuadShared<R> shared(memory, args.leaves);
  const int thread = static_cast<int>(threadIdx.x), row_begin = static_cast<int>(blockIdx.y) * R,
            column_begin = static_cast<int>(blockIdx.x) * kQuadColumns;
  let_next_kernel_start();
  QuadWarp<R, D> warp(args);
  warp.start();
  if (!args.deterministic && thread < 2 * R) {
    race_order(args.seed, row_begin + thread / 2, column_begin / 64, thread % 2, shared.order(thread / 2, thread % 2),
               args.leaves);
  }
  wait_for_earlier_kernels();
  warp.walk([&](int leaf) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const __half2 low = __floats2half2_rn(warp.sum[r][0], warp.sum[r][1]);
      const __half2 high = __floats2half2_rn(warp.sum[r][2], warp.sum[r][3]);
      *reinterpret_cast<uint2*>(shared.at(leaf, r, warp.lane * 4)) =
          make_uint2(*reinterpret_cast<const uint32_t*>(&low), *reinterpret_cast<const uint32_t*>(&high));
    }
  });
  __syncthreads();
  const int r = thread / kQuadColumns, row = row_begin + r, column = column_begin + thread % kQuadColumns;
  if (r >= R || row >= args.m || column >= args.n) return;
  const int16_t* order = args.deterministic ? nullptr : shared.order(r, column / 2 % 2);
  __half total = __float2half_rn(race_total(shared, r, thread % kQuadColumns, order));
  if (args.bias != nullptr) {
    total = __float2half_rn(__fadd_rn(__half2float(total), __half2float(__ushort_as_half(args.bias[column]))));
  }
  args.out[row * args.ldo + column] = __half_as_ushort(total);
}

}  // namespace qf::cuda
