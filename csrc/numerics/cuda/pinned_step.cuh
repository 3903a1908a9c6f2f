// A step of an older matrix unit on the tensor cores of a newer one: the pinned grid.
//
// A unit cuts every term of a step at the grid 2^(E - F), E the largest exponent of the step. The host unit (Hopper: 16
// products, F = 25) would cut the same terms at its own, finer grid. Eight of its sixteen products are free when the
// emulated unit fuses at most eight, so a pair of products +D and -D goes there, with the exponent of D at E + 25 - F:
// the pair adds nothing, but E + 25 - F is now the largest exponent of the host's step, and the host's grid is
// 2^(E + 25 - F - 25), the emulated one. The rest (exact sum, cut to 24 bits) is the same in both units.
//
// E differs from output to output, and D must be a product: the exponents of D over a tile are then row + column. But
// the instruction has four pairs of free k, and a pair acts only where its column operand is not zero. Pair t takes
// columns 2t and 2t + 1 and, per row, the exponent that one of these two outputs needs: the lane that owns the two
// outputs also owns this element of A, so nothing moves between lanes. Two instructions serve all outputs of a tile:
// one pinned for the even columns, one for the odd.
//
// D = left factor * right factor, the right one fixed per instruction: fp16 then pins 30 values of E, one window of a
// few that pinned_window() gives; bf16 pins nearly all. An output whose E is in no window goes back to the definition
// (matrix_unit.h): an Inf or NaN is among its inputs, or its accumulator is huge or tiny.
#pragma once

#include <cstdint>

#include "numerics/cuda/exponent_marks.cuh"
#include "numerics/cuda/mma.cuh"

namespace qf::cuda {

template <class Format>
struct PinRange;
template <>
struct PinRange<Fp16> {
  static constexpr int mantissa = 10, bias = 15, lowest = -14, highest = 15;
};
/// Not to the ends of fp32: results that overflow or go below its normal numbers are left to the definition.
template <>
struct PinRange<Bf16> {
  static constexpr int mantissa = 7, bias = 127, lowest = -99, highest = 120;
};

/// Numbers of the emulated unit, turned into the words that a step needs.
struct Pin {
  uint32_t low2, high2;  // the window of biased E, twice
  uint32_t offset;       // of the word that holds +D and -D's left factor
  uint32_t column;       // their right factor, for lanes whose column belongs to their pair; else 0
};

/// Exponents of the right factor, unless a caller knows a better first one: E is in [lowest, highest] + right factor -
/// (25 - F). The first window is tried first.
template <class Format>
struct PinWindows;
template <>
struct PinWindows<Fp16> {
  static constexpr int count = 3;
  __device__ static constexpr int right(int window) { return window == 0 ? -7 : (window == 1 ? 15 : -14); }
};
template <>
struct PinWindows<Bf16> {
  static constexpr int count = 1;
  __device__ static constexpr int right(int) { return 0; }
};

template <class Format>
__device__ __forceinline__ Pin pinned_window(int fraction_bits, int right) {
  using R = PinRange<Format>;
  const int lift = 25 - fraction_bits - right;  // exponent of the left factor = E + lift
  const int lane = threadIdx.x % 32;
  Pin pin;
  pin.low2 = static_cast<uint32_t>(R::lowest - lift + 127) * 0x10001u;
  pin.high2 = static_cast<uint32_t>(R::highest - lift + 127) * 0x10001u;
  pin.offset = static_cast<uint32_t>(lift + R::bias - 127) * (0x10001u << R::mantissa) + 0x80000000u;
  const uint32_t factor = static_cast<uint32_t>(right + R::bias) << R::mantissa;
  pin.column = lane / 8 == lane % 4 ? factor * 0x10001u : 0u;
  return pin;
}

/// Biased exponents of two fp32 numbers, packed.
__device__ __forceinline__ uint32_t exponent_pair(float low, float high) {
  return (__byte_perm(__float_as_uint(low), __float_as_uint(high), 0x7632) & 0x7F807F80u) >> 7;
}

/// No half overflows, so that the plain instruction of the pair is meant (VIADD.16x2).
__device__ __forceinline__ uint32_t add_s16x2(uint32_t a, uint32_t b) { return __vadd2(a, b); }

/// Largest exponents (exponent_marks.cuh; those of b biased by 127) of the products of rows `a` and columns `b` and of
/// accumulators c, for one row and two columns.
template <int kPairs>
__device__ __forceinline__ uint32_t largest_pair(const uint32_t* a, const uint32_t* b0, const uint32_t* b1,
                                                 uint32_t accumulators) {
  uint32_t x = add_s16x2(a[0], b0[0]), y = add_s16x2(a[0], b1[0]);
#pragma unroll
  for (int j = 1; j < kPairs; ++j) {
    x = __viaddmax_s16x2(a[j], b0[j], x);
    y = __viaddmax_s16x2(a[j], b1[j], y);
  }
  return __vimax3_s16x2(__byte_perm(x, y, 0x5410), __byte_perm(x, y, 0x7632), accumulators);
}

template <class Format>
__device__ __forceinline__ uint32_t pin_word(uint32_t exponent, const Pin& pin) {
  return exponent * (0x10001u << PinRange<Format>::mantissa) + pin.offset;
}

/// One step. a: rows g and g + 8, k 2t..; b: column g. e01, e23: largest exponents (low half: the even column). Returns
/// a word that is not zero where an output of this lane is outside the window; d is wrong there and right elsewhere.
template <class Format, class Accumulator>
__device__ __forceinline__ uint32_t pinned_step(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t b, uint32_t e01,
                                                uint32_t e23, const float (&c)[4], const Pin& pin) {
  // Clamped: an infinite left factor would meet the zeros of the other columns.
  const uint32_t p01 = __vmins2(__vmaxs2(e01, pin.low2), pin.high2);
  const uint32_t p23 = __vmins2(__vmaxs2(e23, pin.low2), pin.high2);
  const uint32_t factors[2] = {b, pin.column};
  float even[4];
  {
    const uint32_t rows[4] = {a0, a1, pin_word<Format>(p01 & 0xFFFFu, pin), pin_word<Format>(p23 & 0xFFFFu, pin)};
    mma_into<Accumulator>(Format{}, even, rows, factors, c);
  }
  {
    const uint32_t rows[4] = {a0, a1, pin_word<Format>(p01 >> 16, pin), pin_word<Format>(p23 >> 16, pin)};
    mma_into<Accumulator>(Format{}, d, rows, factors, c);
  }
  d[0] = even[0];
  d[2] = even[2];
  return (p01 ^ e01) | (p23 ^ e23);
}

__device__ __forceinline__ bool in_window(uint32_t exponent, const Pin& pin) {
  return exponent >= (pin.low2 & 0xFFFFu) && exponent <= (pin.high2 & 0xFFFFu);
}

}  // namespace qf::cuda
