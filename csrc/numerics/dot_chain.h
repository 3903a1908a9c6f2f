// Chains of matrix-unit steps over many outputs at once: what every emulated GEMM and attention product is made of.
//
// The left operand is a set of rows, the right one panels of 16 columns; each output owns one accumulator that walks a
// strided set of k in ascending order. An implementation per instruction set gives the bits of the oracle
// (matrix_unit.h), for all inputs: out-of-range blocks and special values take a slow path, per block.
#pragma once
// nvcc: u[0] = static_cast<uint32_t>(qf::operand_exponent(x[0], -14));

#include <cstdint>

#include "numerics/isa.h"
#include "numerics/matrix_unit.h"

namespace qf {

inline constexpr int kPanelWidth = 16;
/// Exponent of a zero: below every real one, and small enough to be added to itself.
inline constexpr int32_t kZeroExponent = -100000;
/// Exponent of Inf and NaN: sends the block to the slow path.
inline constexpr int32_t kSpecialExponent = 50000;

/// k = start + i * stride + j for i < count, 0 <= j < length; i outer. length is a multiple of 16, except for a K tail.
struct KWalk {
  int64_t start;
  int64_t length;
  int64_t stride;
  int64_t count;
};

/// Rows of the left operand: value[row * ld + k] holds numbers of the unit's input format, exponent the matching
/// operand_exponent().
struct ChainRows {
  const float* value;
  const int32_t* exponent;
  int64_t ld;
};

/// One panel of the right operand: value[k * 16 + column], exponent likewise.
struct ChainPanel {
  const float* value;
  const int32_t* exponent;
};

/// What a chain does with its accumulator.
enum class Accumulate : uint8_t {
  carried,    // c enters the fused sum of each step
  fresh_add,  // every 16 k: t = steps from +0, then acc = acc + t, rounded to nearest in fp32
};

/// Exponent of x as the matrix unit sees it (clamped to the format's smallest normal exponent `lowest`).
QF_HD inline int32_t operand_exponent(float x, int lowest) {
  const uint32_t magnitude = float_bits(x) & 0x7FFFFFFFu;
  if (magnitude == 0) return kZeroExponent;
  if (magnitude >= 0x7F800000u) return kSpecialExponent;
  const int exponent = static_cast<int>(magnitude >> 23) - 127;
  return exponent < lowest ? lowest : exponent;
}

struct ChainArgs {
  MatrixUnit unit;
  Accumulate accumulate = Accumulate::carried;
  KWalk walk;
  ChainRows rows;
  int row_count;
  const ChainPanel* panels;  // [panel_count]
  int panel_count;
  float* accumulator;        // in and out: [row_count][panel_count * 16]
  int64_t accumulator_ld;    // in elements
};

/// Runs the chain with the instructions of `isa`; the result does not depend on it.
void dot_chain(Isa isa, const ChainArgs& args);

}  // namespace qf
