// Chains of matrix-unit steps over many outputs at once: what every emulated GEMM and attention product is made of.
//
// The left operand is a set of rows, the right one panels of 16 columns; each output owns one accumulator that walks a
// strided set of k in ascending order. An implementation per instruction set gives the bits of the oracle
// (matrix_unit.h), for all inputs: out-of-range blocks and special values take a slow path, per block.
#pragma once
// nvcc: u[0] = static_cast<uint32_t>(qf::column_exponent(x[0], -14));

#include <cstdint>

#include "numerics/isa.h"
#include "numerics/matrix_unit.h"

namespace qf {

inline constexpr int kPanelWidth = 16;
/// k = start + i * stride + j for i < count, 0 <= j < length; i outer. start, length and stride are multiples
/// of 16 (of the unit's step, and even, at least).
struct KWalk {
  int64_t start;
  int64_t length;
  int64_t stride;
  int64_t count;
};

/// Exponents are int16, so that a vector instruction handles two k at once. A zero lies below every real exponent, Inf
/// and NaN above, and every sum of two of them stays recognisable: zero + zero < zero + real < real < special + zero.
inline constexpr int kZeroExponent = -8000;
inline constexpr int kSpecialExponent = 16000;

/// Exponent of x as the matrix unit sees it: clamped to the format's smallest normal exponent `lowest`.
QF_HD inline int16_t column_exponent(float x, int lowest) {
  const uint32_t magnitude = float_bits(x) & 0x7FFFFFFFu;
  if (magnitude == 0) return kZeroExponent;
  if (magnitude >= 0x7F800000u) return kSpecialExponent;
  const int exponent = static_cast<int>(magnitude >> 23) - 127;
  return static_cast<int16_t>(exponent < lowest ? lowest : exponent);
}

/// The same with fp32's bias, which the sum of a row's and a column's exponent then has too.
QF_HD inline int16_t row_exponent(float x, int lowest) {
  return static_cast<int16_t>(column_exponent(x, lowest) + 127);
}

/// Rows of the left operand, numbers of the unit's input format: value[row * ld + k], exponent[row * ld + k] =
/// row_exponent of it. ld is even.
struct ChainRows {
  const float* value;
  const int16_t* exponent;
  int64_t ld;
};

/// One panel of the right operand: value[k * 16 + column], exponent[panel_exponent_index(k, column)] = column_exponent
/// of it.
struct ChainPanel {
  const float* value;
  const int16_t* exponent;
};

/// Exponents of a panel lie in pairs of k: [K / 2][16][2].
QF_HD inline int64_t panel_exponent_index(int64_t k, int column) {
  return (k & ~int64_t{1}) * kPanelWidth + column * 2 + (k & 1);
}

/// What a chain does with its accumulator.
enum class Accumulate : uint8_t {
  carried,    // c enters the fused sum of each step
  fresh_add,  // every 16 k: t = steps from +0, then acc = acc + t, rounded to nearest in fp32
};

struct ChainArgs {
  MatrixUnit unit;
  Accumulate accumulate = Accumulate::carried;
  KWalk walk;
  ChainRows rows;
  int row_count;
  const ChainPanel* panels;  // [panel_count]
  int panel_count;
  float* accumulator;      // in and out: [row_count][panel_count * 16]
  int64_t accumulator_ld;  // in elements
};

/// Runs the chain with the instructions of `isa`; the result does not depend on it.
void dot_chain(Isa isa, const ChainArgs& args);

/// The same by the oracle alone, one output at a time.
void dot_chain_oracle(const ChainArgs& args);

}  // namespace qf
