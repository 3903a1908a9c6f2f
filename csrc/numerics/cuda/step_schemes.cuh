// Ways to carry out a step of an emulated matrix unit on a tile of 16 x 8 outputs, one warp. All give the bits of
// matrix_unit.h; which one serves a unit on a GPU is decided by scheme.h.
//
//   Native      the GPU's own instruction: emulated and own unit are the same
//   Pinned      the own instruction with its grid pinned (pinned_step.cuh): emulated units of at most 8 products and F
//   < 25 Definition  fused_dot_add_step itself, an output at a time: any unit on any GPU, slowly
//
// Both operands lie in shared memory, [row][kLd], values and marked exponents alike.
#pragma once

#include "base/half.h"
#include "numerics/cuda/pinned_step.cuh"
#include "numerics/matrix_unit.h"

namespace qf::cuda {

/// 16-byte aligned, and 20 banks from row to row: the eight rows of a tile lie in different banks.
constexpr int kLd = 40;

struct Rows {
  const uint16_t* value;
  const int16_t* exponent;
};

template <class Format>
__device__ __forceinline__ float number(uint16_t bits) {
  return PinRange<Format>::bias == 127 ? bf16_to_float(bits) : half_to_float(bits);
}

__device__ __forceinline__ uint32_t pair_at(const uint16_t* from) { return *reinterpret_cast<const uint32_t*>(from); }

/// One output by the definition: `count` products of a row and a column.
template <class Format>
__device__ __noinline__ float definition_output(const MatrixUnit& unit, const uint16_t* row, const uint16_t* column,
                                                int count, float c) {
  float a[16], b[16];
  for (int k = 0; k < count; ++k) {
    a[k] = number<Format>(row[k]);
    b[k] = number<Format>(column[k]);
  }
  return fused_dot_add_step(unit, a, 1, b, 1, count, c);
}

/// d[i] of this lane: row g + 8 * (i / 2), column 2t + i % 2.
struct LaneTile {
  int g, t;
  __device__ LaneTile() : g(threadIdx.x % 32 / 4), t(threadIdx.x % 4) {}
  __device__ int row(int i) const { return g + 8 * (i / 2); }
  __device__ int column(int i) const { return 2 * t + i % 2; }
};

template <class Format>
struct Definition {
  using Number = Format;
  static constexpr bool uses_exponents = false;
  struct Left {
    const uint16_t* rows;
  };
  struct Right {
    const uint16_t* rows;
  };
  MatrixUnit unit;
  LaneTile lane;

  __device__ explicit Definition(const MatrixUnit& u, int = 0) : unit(u) {}
  /// Products of one step: what a caller advances by.
  __device__ int step() const { return unit.products; }
  __device__ Left left(Rows rows, int k) const { return {rows.value + k}; }
  __device__ Right right(Rows rows, int k) const { return {rows.value + k}; }
  __device__ void run(float (&c)[4], const Left& a, const Right& b) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      c[i] = definition_output<Format>(unit, a.rows + lane.row(i) * kLd, b.rows + lane.column(i) * kLd, unit.products,
                                       c[i]);
    }
  }
};

/// `Accumulator` is float, or Fp16 for units that round to fp16 after each step.
template <class Format, class Accumulator>
struct Native {
  using Number = Format;
  static constexpr bool uses_exponents = false;
  struct Left {
    uint32_t a[4];
  };
  struct Right {
    uint32_t b[2];
  };
  LaneTile lane;

  __device__ explicit Native(const MatrixUnit&, int = 0) {}
  __device__ static constexpr int step() { return 16; }
  __device__ Left left(Rows rows, int k) const {
    const uint16_t* from = rows.value + lane.g * kLd + k + 2 * lane.t;
    return {{pair_at(from), pair_at(from + 8 * kLd), pair_at(from + 8), pair_at(from + 8 * kLd + 8)}};
  }
  __device__ Right right(Rows rows, int k) const {
    const uint16_t* from = rows.value + lane.g * kLd + k + 2 * lane.t;
    return {{pair_at(from), pair_at(from + 8)}};
  }
  __device__ void run(float (&c)[4], const Left& a, const Right& b) const {
    float d[4];
    mma_into<Accumulator>(Format{}, d, a.a, b.b, c);
#pragma unroll
    for (int i = 0; i < 4; ++i) c[i] = d[i];
  }
};

template <class Format, class Accumulator, int kProducts>
struct Pinned {
  using Number = Format;
  static constexpr bool uses_exponents = true;
  static constexpr int kPairs = kProducts / 2;
  struct Left {
    uint32_t a[2], e[2][kPairs];
    const uint16_t* rows;
  };
  struct Right {
    uint32_t b, e[2][kPairs];
    const uint16_t* rows;
  };
  MatrixUnit unit;
  LaneTile lane;
  int first;
  Pin pin;

  /// first_right: right factor's exponent of the window that is tried first (pinned_step.cuh).
  __device__ explicit Pinned(const MatrixUnit& u, int first_right = PinWindows<Format>::right(0))
      : unit(u), first(first_right), pin(window(0)) {}
  __device__ static constexpr int step() { return kProducts; }
  /// fp16 accumulators below 2^-14 have the exponent of 2^-14: leave them to the definition.
  __device__ Pin window(int index) const {
    Pin made = pinned_window<Format>(unit.fraction_bits, index == 0 ? first : PinWindows<Format>::right(index));
    if constexpr (IsHalf<Accumulator>::value) made.low2 = __vmaxs2(made.low2, (127u - 13u) * 0x10001u);
    return made;
  }
  __device__ static void load_exponents(uint32_t (&e)[kPairs], const int16_t* from) {
    if constexpr (kPairs == 4) {
      const uint4 four = *reinterpret_cast<const uint4*>(from);
      e[0] = four.x, e[1] = four.y, e[2] = four.z, e[3] = four.w;
    } else {
      const uint2 two = *reinterpret_cast<const uint2*>(from);
      e[0] = two.x, e[1] = two.y;
    }
  }
  /// k 2t and 2t + 1 of a row; lanes beyond the step's products hold zeros.
  __device__ uint32_t pair_of(const uint16_t* row) const {
    return 2 * lane.t < kProducts ? pair_at(row + 2 * lane.t) : 0u;
  }

  __device__ Left left(Rows rows, int k) const {
    Left out;
    out.rows = rows.value + k;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int at = (lane.g + 8 * half) * kLd + k;
      out.a[half] = pair_of(rows.value + at);
      load_exponents(out.e[half], rows.exponent + at);
    }
    return out;
  }
  __device__ Right right(Rows rows, int k) const {
    Right out;
    out.rows = rows.value + k;
    out.b = pair_of(rows.value + lane.g * kLd + k);
#pragma unroll
    for (int parity = 0; parity < 2; ++parity)
      load_exponents(out.e[parity], rows.exponent + (2 * lane.t + parity) * kLd + k);
    return out;
  }
  __device__ void run(float (&c)[4], const Left& a, const Right& b) const {
    float d[4];
    const uint32_t outside = attempt(d, c, a, b);
    if (__any_sync(0xFFFFFFFFu, outside != 0)) repair_into(d, c, a, b);
#pragma unroll
    for (int i = 0; i < 4; ++i) c[i] = d[i];
  }

  __device__ uint32_t attempt(float (&d)[4], const float (&c)[4], const Left& a, const Right& b) const {
    const uint32_t e01 = largest_pair<kPairs>(a.e[0], b.e[0], b.e[1], exponent_pair(c[0], c[1]));
    const uint32_t e23 = largest_pair<kPairs>(a.e[1], b.e[0], b.e[1], exponent_pair(c[2], c[3]));
    return pinned_step<Format, Accumulator>(d, a.a[0], a.a[1], b.b, e01, e23, c, pin);
  }
  __device__ __forceinline__ void repair_into(float (&d)[4], const float (&c)[4], const Left& a, const Right& b) const {
    const float4 repaired = repair(*this, {d[0], d[1], d[2], d[3]}, {c[0], c[1], c[2], c[3]}, a, b);
    d[0] = repaired.x, d[1] = repaired.y, d[2] = repaired.z, d[3] = repaired.w;
  }

  /// The step adds nothing: all its products are zero, and the accumulator is no Inf or NaN (which the definition turns
  /// into its own NaN). For fp32 accumulators from F = 23 on: 24 bits survive the cut.
  __device__ bool adds_nothing(uint32_t products, int i, float c) const {
    const auto largest = static_cast<int16_t>(products >> (16 * (i % 2)));
    return !IsHalf<Accumulator>::value && unit.fraction_bits >= 23 && largest < kZeroMark / 2 && detail::is_finite(c);
  }

  /// Outputs outside the first window: nothing to add, the other windows, then the definition.
  /// A function of its own, by value: the fast path keeps its registers and stays short.
  static __device__ __noinline__ float4 repair(Pinned self, float4 outputs, float4 accumulators, Left a, Right b) {
    float d[4] = {outputs.x, outputs.y, outputs.z, outputs.w};
    self.repair_outputs(d, {accumulators.x, accumulators.y, accumulators.z, accumulators.w}, a, b);
    return {d[0], d[1], d[2], d[3]};
  }
  __device__ __forceinline__ void repair_outputs(float (&d)[4], const float (&c)[4], const Left& a,
                                                 const Right& b) const {
    const uint32_t e01 = largest_pair<kPairs>(a.e[0], b.e[0], b.e[1], exponent_pair(c[0], c[1]));
    const uint32_t e23 = largest_pair<kPairs>(a.e[1], b.e[0], b.e[1], exponent_pair(c[2], c[3]));
    constexpr uint32_t kBelowAll = 0x80008000u;
    const uint32_t products[2] = {largest_pair<kPairs>(a.e[0], b.e[0], b.e[1], kBelowAll),
                                  largest_pair<kPairs>(a.e[1], b.e[0], b.e[1], kBelowAll)};
    uint32_t left_over = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (in_window(exponent_of(e01, e23, i), pin)) continue;
      if (adds_nothing(products[i / 2], i, c[i])) {
        d[i] = c[i] + 0.0f;  // the exact sum has no negative zero
        continue;
      }
      // fp16: no product lies below 2^-48, so all are zero like the accumulator; d is +0 already
      const bool nothing = PinRange<Format>::bias != 127 && exponent_of(e01, e23, i) == 0 && c[i] == 0.0f;
      left_over |= nothing ? 0u : 1u << i;
    }
    if (!__any_sync(0xFFFFFFFFu, left_over != 0)) return;
#pragma unroll 1
    for (int index = 1; index < PinWindows<Format>::count; ++index) {
      const Pin other = window(index);
      bool useful = false;
#pragma unroll
      for (int i = 0; i < 4; ++i) useful |= (left_over >> i & 1u) != 0 && in_window(exponent_of(e01, e23, i), other);
      if (!__any_sync(0xFFFFFFFFu, useful)) continue;
      float alternative[4];
      pinned_step<Format, Accumulator>(alternative, a.a[0], a.a[1], b.b, e01, e23, c, other);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (!(left_over >> i & 1u) || !in_window(exponent_of(e01, e23, i), other)) continue;
        d[i] = alternative[i];
        left_over &= ~(1u << i);
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (left_over >> i & 1u) {
        d[i] =
            definition_output<Format>(unit, a.rows + lane.row(i) * kLd, b.rows + lane.column(i) * kLd, kProducts, c[i]);
      }
    }
  }
  __device__ static uint32_t exponent_of(uint32_t e01, uint32_t e23, int i) {
    return (i < 2 ? e01 : e23) >> (16 * (i % 2)) & 0xFFFFu;
  }
};

}  // namespace qf::cuda
