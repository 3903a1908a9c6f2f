// A step of an emulated matrix unit as integers on its grid, on a GPU whose own unit is another one.
//
// Per output: E = the largest exponent of the step (add-max over exponents, as the pinned scheme has it), g = 2^(E - F)
// the grid. A way to sum products gives the integer P = sum of trunc(a * b / g); the accumulator is cut by the
// conversion to int32, which truncates toward zero, of c * 2^(F - E) (exact). Then d = (P + cut c) * g, converted back
// toward zero to 24 bits (or rounded once to fp16).
//
// |P| <= 16 * (2 - 2^-10)^2 * 2^25 < 2^31, so P is an int32; P + cut c can pass 2^31 only with 16 products and F = 25,
// and its sign then tells. E in the window keeps every scale and every result normal numbers of fp32; what lies outside
// (Inf, NaN, accumulators that are huge or tiny, products that are all zero) is repaired: nothing to add, or the
// definition.
#pragma once

#include "numerics/cuda/step_schemes.cuh"

namespace qf::cuda {

/// By the GPU's own conversion: exact, also for subnormals. What an Inf or NaN becomes does not matter here.
template <class Format>
__device__ __forceinline__ float finite_number(uint16_t bits) {
  return PinRange<Format>::bias == 127 ? bf16_to_float(bits) : __half2float(__ushort_as_half(bits));
}
template <class Format>
__device__ __forceinline__ float2 finite_pair(uint32_t pair) {
  return {finite_number<Format>(static_cast<uint16_t>(pair)), finite_number<Format>(static_cast<uint16_t>(pair >> 16))};
}

/// kPairs words from an address that is a multiple of 8 bytes (of 16, where there are four or more).
template <int kPairs>
__device__ __forceinline__ void load_pairs(uint32_t (&out)[kPairs], const void* from) {
  if constexpr (kPairs == 2) {
    const uint2 two = *static_cast<const uint2*>(from);
    out[0] = two.x, out[1] = two.y;
  } else {
#pragma unroll
    for (int i = 0; i < kPairs; i += 4) {
      const uint4 four = static_cast<const uint4*>(from)[i / 4];
      out[i] = four.x, out[i + 1] = four.y, out[i + 2] = four.z, out[i + 3] = four.w;
    }
  }
}

// Add-max over marked exponents (exponent_marks.cuh), two per word. Before compute capability 9.0 there is no
// instruction for it: exponents become small numbers that are not negative (a zero 0, e + 1000, Inf and NaN 13000 or
// more), so that sums carry nowhere, and bits of fp16 numbers in the same order, whose maximum is one instruction.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
constexpr int kSumOffset = 0;  // a sum of two exponents is so much larger
__device__ __forceinline__ uint32_t summable(uint32_t marked) { return marked; }
__device__ __forceinline__ uint32_t larger(uint32_t a, uint32_t b) { return __vmaxs2(a, b); }
__device__ __forceinline__ uint32_t smaller(uint32_t a, uint32_t b) { return __vmins2(a, b); }
template <int kPairs>
__device__ __forceinline__ uint32_t largest_sums(const uint32_t* a, const uint32_t* b0, const uint32_t* b1,
                                                 uint32_t accumulators) {
  return largest_pair<kPairs>(a, b0, b1, accumulators);
}
#else
constexpr int kSumOffset = 2000;
__device__ __forceinline__ __half2 as_halves(uint32_t bits) { return *reinterpret_cast<const __half2*>(&bits); }
__device__ __forceinline__ uint32_t bits_of(__half2 x) { return *reinterpret_cast<const uint32_t*>(&x); }
__device__ __forceinline__ uint32_t larger(uint32_t a, uint32_t b) {
  return bits_of(__hmax2(as_halves(a), as_halves(b)));
}
__device__ __forceinline__ uint32_t smaller(uint32_t a, uint32_t b) {
  return bits_of(__hmin2(as_halves(a), as_halves(b)));
}
__device__ __forceinline__ uint32_t summable(uint32_t marked) {
  constexpr uint32_t kNone = 7000u * 0x10001u;
  const uint32_t raised = (marked ^ 0x80008000u) - static_cast<uint32_t>(0x8000 + kZeroMark) * 0x10001u;
  return larger(raised, kNone) - kNone;
}
template <int kPairs>
__device__ __forceinline__ uint32_t largest_sums(const uint32_t* a, const uint32_t* b0, const uint32_t* b1,
                                                 uint32_t accumulators) {
  uint32_t x = a[0] + b0[0], y = a[0] + b1[0];
#pragma unroll
  for (int j = 1; j < kPairs; ++j) {
    x = larger(x, a[j] + b0[j]);
    y = larger(y, a[j] + b1[j]);
  }
  const uint32_t both = larger(__byte_perm(x, y, 0x5410), __byte_perm(x, y, 0x7632));
  return larger(both, accumulators + kSumOffset * 0x10001u);
}
#endif

/// Exponents of a step, two rows of one operand.
template <int kProducts>
struct StepExponents {
  static constexpr int kPairs = kProducts / 2;
  uint32_t e[2][kPairs];
  __device__ void load(int row, const int16_t* from) {
    load_pairs<kPairs>(e[row], from);
#pragma unroll
    for (int j = 0; j < kPairs; ++j) e[row][j] = summable(e[row][j]);
  }
};

/// Where a step's operand lies in shared memory, for the repair alone: 32 bits, so that the fast path computes little.
struct SharedRows {
  uint32_t value, exponent;
  SharedRows() = default;
  __device__ explicit SharedRows(Rows rows)
      : value(static_cast<uint32_t>(__cvta_generic_to_shared(rows.value))),
        exponent(static_cast<uint32_t>(__cvta_generic_to_shared(rows.exponent))) {}
  __device__ Rows rows() const {
    return {static_cast<const uint16_t*>(__cvta_shared_to_generic(value)),
            static_cast<const int16_t*>(__cvta_shared_to_generic(exponent))};
  }
};

/// What a way to sum products needs to know of an output's grid.
struct OutputGrid {
  uint32_t exponent;  // E + 127 + kSumOffset, in its low bits; what lies above bit 15 is not it
  float scale;        // 2^(F - E)
};

/// `Sum` sums the products: its Left and Right are made of two rows each and hold `exponents` and `rows` (the first of
/// them).
template <class Format, class Accumulator, int kProducts, class Sum>
struct GridStep {
  using Number = Format;
  using Left = typename Sum::Left;
  using Right = typename Sum::Right;
  static constexpr bool uses_exponents = true, needs_sixteen = false;
  static constexpr int blocks = Sum::blocks, kPairs = kProducts / 2;
  static constexpr bool kHalf = IsHalf<Accumulator>::value;
  MatrixUnit unit;
  LaneTile lane;
  Sum sum;
  uint32_t low2, high2;               // the window of biased E, twice
  uint32_t scale_bits, unscale_bits;  // what an exponent field is taken from, or added to: 2^(F - E), 2^(E - F)

  __device__ explicit GridStep(const MatrixUnit& u, int = 0) : unit(u), sum(u) {
    // fp16 accumulators below 2^-14 have the exponent of 2^-14: leave them to the definition
    const int low = kHalf ? 127 - 13 : unit.fraction_bits + 1;
    low2 = static_cast<uint32_t>(low + kSumOffset) * 0x10001u;
    high2 = static_cast<uint32_t>(247 + kSumOffset) * 0x10001u;  // results stay below 66 * 2^120
    scale_bits = static_cast<uint32_t>(254 + unit.fraction_bits + kSumOffset) << 23;
    unscale_bits = static_cast<uint32_t>(-unit.fraction_bits - kSumOffset) << 23;
  }
  __device__ static constexpr int step() { return kProducts; }
  __device__ Left left(Rows rows, int k) const {
    Left out;
    out.rows = SharedRows({rows.value + k, rows.exponent + k});
#pragma unroll
    for (int half = 0; half < 2; ++half) out.exponents.load(half, rows.exponent + (lane.g + 8 * half) * kLd + k);
    sum.load(out, rows.value + k, lane);
    return out;
  }
  __device__ Right right(Rows rows, int k) const {
    Right out;
    out.rows = SharedRows({rows.value + k, rows.exponent + k});
#pragma unroll
    for (int parity = 0; parity < 2; ++parity)
      out.exponents.load(parity, rows.exponent + (2 * lane.t + parity) * kLd + k);
    sum.load(out, rows.value + k, lane);
    return out;
  }

  __device__ void run(float (&c)[4], const Left& a, const Right& b) const {
    const uint32_t e[2] = {largest(a, b, 0, exponent_pair(c[0], c[1])), largest(a, b, 1, exponent_pair(c[2], c[3]))};
    uint32_t outside = 0;
    OutputGrid grid[4];
    float d[4];
    int total[4];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t inside = smaller(larger(e[half], low2), high2);
      outside |= inside ^ e[half];
      grid[2 * half] = grid_of(inside);
      grid[2 * half + 1] = grid_of(inside >> 16);
    }
    sum.run(total, grid, a, b);
    int overflow = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int own = __float2int_rz(c[i] * grid[i].scale);
      const int both = static_cast<int>(static_cast<uint32_t>(total[i]) + static_cast<uint32_t>(own));
      if constexpr (kProducts == 16) overflow |= ~(total[i] ^ own) & (total[i] ^ both);
      d[i] = finished(both, grid[i].exponent);
    }
    if (__any_sync(0xFFFFFFFFu, outside != 0 || overflow < 0)) {
      if (outside != 0 || overflow < 0) {
        const float4 repaired = repair(unit, {c[0], c[1], c[2], c[3]}, a.rows, b.rows);
        d[0] = repaired.x, d[1] = repaired.y, d[2] = repaired.z, d[3] = repaired.w;
      }
      __syncwarp();
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) c[i] = d[i];
  }

 private:
  __device__ static uint32_t largest(const Left& a, const Right& b, int half, uint32_t accumulators) {
    return largest_sums<kPairs>(a.exponents.e[half], b.exponents.e[0], b.exponents.e[1], accumulators);
  }
  __device__ OutputGrid grid_of(uint32_t exponent) const {
    return {exponent, __uint_as_float(scale_bits - exponent * (1u << 23))};
  }
  __device__ float finished(int total, uint32_t exponent) const {
    const float grid = __uint_as_float(exponent * (1u << 23) + unscale_bits);
    if constexpr (kHalf) {  // one rounding: the double holds all of the sum. What rounds to zero is +0, also from below
      const double value = static_cast<double>(total) * static_cast<double>(grid);
      return __half2float(__double2half(value)) + 0.0f;
    } else {
      return __int2float_rz(total) * grid;
    }
  }

  /// All outputs of this lane: nothing to add, or the definition. A function of its own, by value: the fast path keeps
  /// its registers and stays short.
  static __device__ __noinline__ float4 repair(MatrixUnit unit, float4 accumulators, SharedRows a, SharedRows b) {
    const Rows left = a.rows(), right = b.rows();
    const float c[4] = {accumulators.x, accumulators.y, accumulators.z, accumulators.w};
    const LaneTile lane;
    float d[4];
    for (int i = 0; i < 4; ++i) {
      const int row = lane.row(i) * kLd, column = lane.column(i) * kLd;
      int largest = 2 * kZeroMark;
      for (int k = 0; k < kProducts; ++k) largest = max(largest, left.exponent[row + k] + right.exponent[column + k]);
      // the accumulator's bits fit into the unit's fraction, and the exact sum has no negative zero
      const bool adds_nothing = largest < kZeroMark / 2 && unit.fraction_bits >= (kHalf ? 10 : 23);
      d[i] = adds_nothing && detail::is_finite(c[i])
                 ? c[i] + 0.0f
                 : definition_output<Format>(unit, left.value + row, right.value + column, kProducts, c[i]);
    }
    return {d[0], d[1], d[2], d[3]};
  }
};

}  // namespace qf::cuda
