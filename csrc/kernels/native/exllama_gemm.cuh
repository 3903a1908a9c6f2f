// exllama up to 50 rows: chains of four fp16 FMAs, scaled into fp32 sums over 128 k (a leaf), leaves added in fp16.
//
// A block takes 32 columns over all of K. Eight lanes share a leaf, four columns each, so that an activation that a
// lane loads meets four weights; a warp walks four leaves (a quad) at a time, the block's warps go round the quads.
// Each warp copies the activations of its quad to shared memory, a part of it ahead. The leaves' sums meet in shared
// memory, where they are added in the order of the plan. With many rows a block takes several groups of rows, one after
// the other, so that the weights of the next group's first quad are on their way while the last group is added up.
//
//   codes    [tile of 32 columns][quad of leaves][octet of k][leaf in quad][lane of 8][4 words]: a word is eight k of
//   one
//            column: nibbles 0, 4: k 0, 1; 1, 5: k 2, 3; 2, 6: k 4, 5; 3, 7: k 6, 7. Beyond K: zeros
//   numbers  [tile][group][lane of 8][4 words]: scales of columns 0, 1; of 2, 3; 1024 + z of 0, 1; of 2, 3
#pragma once

#include <cuda_fp16.h>

#include "base/cuda/overlap.cuh"
#include "kernels/emulate/race_order.h"
#include "kernels/native/load.cuh"

namespace qf::cuda {

constexpr int kLeafK = 128, kOctets = kLeafK / 8, kQuad = 4, kQuadColumns = 32;

struct ExllamaArgs {
  const uint4* codes;
  const uint4* numbers;
  const uint16_t* activations;
  const uint16_t* bias;  // or null
  uint16_t* out;
  int64_t lda, ldo;
  int m, n, k, leaves, groups;
  int first_row;    // of the call, for the race
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

/// Shared memory: activations [warp][one of two parts][row][leaf][octet of the part] of 8 numbers; partial sums
/// [leaf][row][column]; orders of a race [row][parity][leaf].
template <int R>
struct QuadShared {
  static constexpr int kPart = R >= 8 ? 4 : 8;  // octets of each leaf
  static constexpr int kPartBytes = R * kQuad * kPart * 16;
  char* activations;
  __half* partials;
  int16_t* orders;
  int leaves;

  __device__ QuadShared(char* base, int warps, int count)
      : activations(base),
        partials(reinterpret_cast<__half*>(base + warps * 2 * kPartBytes)),
        orders(reinterpret_cast<int16_t*>(partials + count * R * kQuadColumns)),
        leaves(count) {}
  static int bytes(int warps, int leaves, bool racing) {
    return warps * 2 * kPartBytes + leaves * R * (kQuadColumns * 2 + (racing ? 2 * 2 : 0));
  }
  __device__ __half* at(int leaf, int row, int column) const {
    return partials + (leaf * R + row) * kQuadColumns + column;
  }
  __device__ int16_t* order(int row, int parity) const { return orders + (row * 2 + parity) * leaves; }
};

/// A warp's walk over its quads; R rows, D octets of weights in flight. kLeafGroups: a leaf lies in one group.
template <int R, int D, bool kLeafGroups>
struct QuadWarp {
  using Shared = QuadShared<R>;
  static constexpr int kPart = Shared::kPart;
  static_assert(kPart % D == 0);
  const ExllamaArgs& args;
  const int warps, warp, lane, quads;
  const uint4* codes;  // of the quad at hand
  const uint4* numbers;
  char* activations;
  uint4 code[D], next_numbers{};
  QuadGroup group;
  float sum[R][4];

  __device__ QuadWarp(const ExllamaArgs& a, const Shared& shared)
      : args(a),
        warps(static_cast<int>(blockDim.x / 32)),
        warp(static_cast<int>(threadIdx.x / 32)),
        lane(static_cast<int>(threadIdx.x % 32)),
        quads((a.leaves + kQuad - 1) / kQuad) {
    codes = a.codes + (static_cast<int64_t>(blockIdx.x) * quads + warp) * kOctets * 32 + lane;
    numbers = a.numbers + static_cast<int64_t>(blockIdx.x) * a.groups * 8 + lane % 8;
    activations = shared.activations + warp * 2 * Shared::kPartBytes;
  }
  __device__ int leaf(int quad) const { return quad * kQuad + lane / 8; }

  __device__ void fetch_numbers(int quad, int octet) {
    const int at = leaf(quad) * kOctets + octet;
    load_four(next_numbers, numbers + (at >> args.octet_shift) * 8, at * 8 < args.k);
  }
  /// Part `part` of the quad's activations, into its buffer, if there is such a quad; zeros beyond K.
  __device__ void copy_part(int quad, int part) const {
    if (quad < quads) {
#pragma unroll
      for (int i = 0; i < Shared::kPartBytes / 512; ++i) {
        const int cell = i * 32 + lane, leaf_at = quad * kQuad + cell / kPart % kQuad;
        const int k = leaf_at * kLeafK + (part * kPart + cell % kPart) * 8;
        // rows beyond the last repeat it; nobody reads their sums
        const int row = min(static_cast<int>(blockIdx.y) * R + cell / kPart / kQuad, args.m - 1);
        copy_to_shared(activations + part % 2 * Shared::kPartBytes + cell * 16,
                       args.activations + row * args.lda + (k < args.k ? k : 0), k < args.k ? 16 : 0);
      }
    }
    asm volatile("cp.async.commit_group;");
  }
  __device__ void take(const uint4& words, const char* x_begin) {
    __half2 w[4][4];
#pragma unroll
    for (int c = 0; c < 4; ++c) group.weights(word_of(words, c), c, w[c]);
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const uint4 x = *reinterpret_cast<const uint4*>(x_begin + r * kQuad * kPart * 16);
#pragma unroll
      for (int c = 0; c < 4; ++c) join(sum[r][c], w[c], x, group.scale[c]);
    }
  }
  /// Two chains of four FMAs; their sum times the scale joins the leaf's.
  static __device__ void join(float& sum, const __half2 (&w)[4], const uint4& x, float scale) {
    __half2 chain = __float2half2_rn(0.0f);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t pair = word_of(x, i);
      chain = __hfma2(w[i], *reinterpret_cast<const __half2*>(&pair), chain);
    }
    sum = __fmaf_rn(__fadd_rn(__low2float(chain), __high2float(chain)), scale, sum);
  }
  __device__ void start() {
    if (warp >= quads) return;
    fetch_numbers(warp, 0);
#pragma unroll
    for (int d = 0; d < D; ++d) load_once(code[d], codes + d * 32, true);
  }
  /// Octets first .. first + D - 1; the next D are fetched.
  __device__ void walk_octets(int quad, int first, int group_octets) {
    const bool inside = first + D < kOctets;
    const uint4* ahead = codes + (inside ? first + D : warps * kOctets) * 32;
    const char* x = activations + first / kPart % 2 * Shared::kPartBytes + (lane / 8 * kPart + first % kPart) * 16;
#pragma unroll
    for (int d = 0; d < D; ++d) {
      const int octet = first + d;
      if (kLeafGroups ? octet == 0 : octet % group_octets == 0) {
        group.enter(next_numbers, leaf(quad) * kLeafK + octet * 8 < args.k);
        const int next = octet + group_octets;
        fetch_numbers(next < kOctets ? quad : quad + warps, next % kOctets);
      }
      take(code[d], x + d * 16);
      load_once(code[d], ahead + d * 32, inside || quad + warps < quads);
    }
  }
  template <class Store>
  __device__ void walk(Store store) {
    const int group_octets = kLeafGroups ? kOctets : 1 << args.octet_shift;
    if (warp >= quads) return;
    copy_part(warp, 0);
    copy_part(warp, 1);
    for (int quad = warp; quad < quads; quad += warps) {
#pragma unroll
      for (int r = 0; r < R; ++r)
#pragma unroll
        for (int c = 0; c < 4; ++c) sum[r][c] = 0.0f;
#pragma unroll 1
      for (int first = 0; first < kOctets; first += D) {
        if (first % kPart == 0) {
          asm volatile("cp.async.wait_group 1;" ::: "memory");
          __syncwarp();
        }
        walk_octets(quad, first, group_octets);
        if ((first + D) % kPart == 0) {
          __syncwarp();
          constexpr int parts = kOctets / kPart;
          const int next = first / kPart + 2;
          copy_part(next < parts ? quad : quad + warps, next % parts);
        }
      }
      codes += warps * kOctets * 32;
      if (leaf(quad) < args.leaves) store(leaf(quad));
    }
  }
};

/// The plan's race: +0, then every leaf in its order, each sum rounded to fp16.
template <int R>
__device__ __half race_total(const QuadShared<R>& shared, int row, int column, const int16_t* order) {
  __half sum = __float2half_rn(0.0f);
#pragma unroll 8
  for (int i = 0; i < shared.leaves; ++i) sum = __hadd(sum, *shared.at(order == nullptr ? i : order[i], row, column));
  return sum;
}

/// The leaves' sums of one group of rows become outputs.
template <int R>
__device__ void write_rows(const ExllamaArgs& args, const QuadShared<R>& shared, int first_row) {
  for (int i = static_cast<int>(threadIdx.x); i < R * kQuadColumns; i += static_cast<int>(blockDim.x)) {
    const int r = i / kQuadColumns, row = first_row + r;
    const int column = static_cast<int>(blockIdx.x) * kQuadColumns + i % kQuadColumns;
    if (row >= args.m || column >= args.n) continue;
    const int16_t* order = args.deterministic ? nullptr : shared.order(r, column / 2 % 2);
    __half total = race_total(shared, r, i % kQuadColumns, order);
    if (args.bias != nullptr) {
      total = __float2half_rn(__fadd_rn(__half2float(total), __half2float(__ushort_as_half(args.bias[column]))));
    }
    args.out[row * args.ldo + column] = __half_as_ushort(total);
  }
}

template <int R, int D, int kThreads, bool kLeafGroups>
__global__ void __launch_bounds__(kThreads) exllama_gemm(const ExllamaArgs args) {
  extern __shared__ __align__(16) char memory[];
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int row_begin = static_cast<int>(blockIdx.y) * R;
  const QuadShared<R> shared(memory, threads / 32, args.leaves);
  let_next_kernel_start();
  QuadWarp<R, D, kLeafGroups> warp(args, shared);
  warp.start();
  for (int i = thread; i < 2 * R && !args.deterministic; i += threads) {
    race_order(args.seed, args.first_row + row_begin + i / 2, static_cast<int>(blockIdx.x) * kQuadColumns / 64, i % 2,
               shared.order(i / 2, i % 2), args.leaves);
  }
  wait_for_earlier_kernels();
  warp.walk([&](int leaf) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const __half2 low = __floats2half2_rn(warp.sum[r][0], warp.sum[r][1]);
      const __half2 high = __floats2half2_rn(warp.sum[r][2], warp.sum[r][3]);
      *reinterpret_cast<uint2*>(shared.at(leaf, r, warp.lane % 8 * 4)) =
          make_uint2(*reinterpret_cast<const uint32_t*>(&low), *reinterpret_cast<const uint32_t*>(&high));
    }
  });
  __syncthreads();
  write_rows(args, shared, row_begin);
}

}  // namespace qf::cuda
