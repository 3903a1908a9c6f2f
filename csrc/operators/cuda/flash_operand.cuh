// Operands of attention's products: 16-bit numbers from global memory to the rows in shared memory that
// step_schemes.cuh reads, in chunks of 32 k, with the exponents that the pinned scheme asks for.
#pragma once

#include "numerics/cuda/step_schemes.cuh"

namespace qf::cuda {

constexpr int kChunk = 32;  // k of one chunk: kLd leaves room for no more

/// Marked exponents (exponent_marks.cuh) of two packed numbers, plus `bias`. A zero's may lie some below kZeroMark, an
/// Inf's or NaN's above kSpecialMark.
template <class Format>
__device__ __forceinline__ uint32_t marked_exponents(uint32_t pair, int bias) {
  using R = PinRange<Format>;
  constexpr uint32_t kTwice = 0x10001u, kTop = 2 * R::bias + 1;
  const uint32_t magnitude = pair & 0x7FFF7FFFu;
  const uint32_t field = magnitude >> R::mantissa & (kTop * kTwice);
  const uint32_t something = __vminu2(magnitude, kTwice);  // per half: 0 for a zero, else 1
  const uint32_t special = __vmaxu2(field, (kTop - 1) * kTwice) - (kTop - 1) * kTwice;
  const uint32_t finite = __vmaxu2(field, kTwice) + something * static_cast<uint32_t>(-kZeroMark);
  const uint32_t base = static_cast<uint16_t>(bias - R::bias + kZeroMark) * kTwice;
  return __vadd2(__vadd2(finite, base), special * static_cast<uint32_t>(kSpecialMark));
}

/// fp32 to the format, to nearest even; NaN becomes 0x7FFF.
template <class Format>
__device__ __forceinline__ uint32_t narrow_bits(float x) {
  if constexpr (PinRange<Format>::bias == 127) {
    uint16_t bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
  } else {
    return __half_as_ushort(__float2half_rn(x));
  }
}
template <class Format>
__device__ __forceinline__ uint32_t narrow_pair(float low, float high) {
  return narrow_bits<Format>(low) | narrow_bits<Format>(high) << 16;
}

/// Chunks of `rows` rows each in shared memory: values, and exponents where the scheme uses them.
template <bool kExponents>
struct Chunks {
  uint16_t* value;
  int16_t* exponent;
  int rows;

  __host__ __device__ static constexpr int bytes(int chunks, int rows) {
    return chunks * rows * kLd * 2 * (kExponents ? 2 : 1);
  }
  __device__ Chunks(char* base, int chunks, int rows_of_chunk)
      : value(reinterpret_cast<uint16_t*>(base)),
        exponent(reinterpret_cast<int16_t*>(value + chunks * rows_of_chunk * kLd)),
        rows(rows_of_chunk) {}

  __device__ Rows at(int chunk, int row) const {
    const int first = (chunk * rows + row) * kLd;
    return {value + first, exponent + first};
  }
  /// Two neighbours in k.
  template <class Format>
  __device__ void put(int chunk, int row, int k, uint32_t pair, int bias) const {
    const int to = (chunk * rows + row) * kLd + k;
    *reinterpret_cast<uint32_t*>(value + to) = pair;
    if constexpr (kExponents) {
      *reinterpret_cast<uint32_t*>(exponent + to) = marked_exponents<Format>(pair, bias);
    }
  }
  /// Eight neighbours in k.
  template <class Format>
  __device__ void put(int chunk, int row, int k, const uint4& eight, int bias) const {
    const int to = (chunk * rows + row) * kLd + k;
    *reinterpret_cast<uint4*>(value + to) = eight;
    if constexpr (kExponents) {
      *reinterpret_cast<uint4*>(exponent + to) =
          uint4{marked_exponents<Format>(eight.x, bias), marked_exponents<Format>(eight.y, bias),
                marked_exponents<Format>(eight.z, bias), marked_exponents<Format>(eight.w, bias)};
    }
  }
};

/// A chunk of keys or values on its way through the registers of a block: loaded early, put into shared memory late.
template <class Format, class L>
struct InFlight {
  static constexpr int kKeyUnits = L::keys * 4 / L::threads;
  static constexpr int kValueUnits = kChunk / 2 * L::head / 2 / L::threads;
  static constexpr int kRightBias = 127;  // step_schemes.cuh: of the right operand's exponents
  uint32_t word[kKeyUnits * 4];
  static_assert(kKeyUnits * 4 >= kValueUnits * 2 && kKeyUnits > 0 && kValueUnits > 0);

  /// Elements [element, element + 32) of keys from `key` on; keys beyond the last one repeat it: nobody reads their
  /// scores.
  __device__ void load_keys(const uint16_t* k, int64_t stride, int key, int keys, int element) {
#pragma unroll
    for (int i = 0; i < kKeyUnits; ++i) {
      const int unit = threadIdx.x + i * L::threads, row = min(key + unit / 4, keys - 1);
      const uint4 eight = *reinterpret_cast<const uint4*>(k + row * stride + element + unit % 4 * 8);
      word[4 * i] = eight.x, word[4 * i + 1] = eight.y, word[4 * i + 2] = eight.z, word[4 * i + 3] = eight.w;
    }
  }
  template <bool kExponents>
  __device__ void put_keys(const Chunks<kExponents>& to, int stage) const {
#pragma unroll
    for (int i = 0; i < kKeyUnits; ++i) {
      const int unit = threadIdx.x + i * L::threads;
      const uint4 eight{word[4 * i], word[4 * i + 1], word[4 * i + 2], word[4 * i + 3]};
      to.template put<Format>(stage, unit / 4, unit % 4 * 8, eight, kRightBias);
    }
  }

  /// A unit is a pair of keys and a pair of elements; eight lanes share a sector of 32 bytes.
  __device__ static int pair_of_keys(int unit) { return unit % 4 + unit / 32 % 4 * 4; }
  __device__ static int pair_of_elements(int unit) { return unit / 4 % 8 + unit / 128 * 8; }

  /// 32 keys from `key` on; values beyond the last key are zeros, as on the CPU.
  __device__ void load_values(const uint16_t* v, int64_t stride, int key, int keys) {
#pragma unroll
    for (int i = 0; i < kValueUnits; ++i) {
      const int unit = threadIdx.x + i * L::threads;
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int row = key + 2 * pair_of_keys(unit) + j;
        word[2 * i + j] = row < keys ? pair_at(v + row * stride + 2 * pair_of_elements(unit)) : 0u;
      }
    }
  }
  /// Transposed: a row per element.
  template <bool kExponents>
  __device__ void put_values(const Chunks<kExponents>& to, int stage) const {
#pragma unroll
    for (int i = 0; i < kValueUnits; ++i) {
      const int unit = threadIdx.x + i * L::threads;
      const int row = 2 * pair_of_elements(unit), k = 2 * pair_of_keys(unit);
      to.template put<Format>(stage, row, k, __byte_perm(word[2 * i], word[2 * i + 1], 0x5410), kRightBias);
      to.template put<Format>(stage, row + 1, k, __byte_perm(word[2 * i], word[2 * i + 1], 0x7632), kRightBias);
    }
  }
};

}  // namespace qf::cuda
