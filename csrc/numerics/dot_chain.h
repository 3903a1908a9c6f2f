// Chains of matrix-unit steps over many outputs at once: what every emulated GEMM and attention product is made of.
//
// The left operand is a set of rows, the right one panels of 16 columns; each output owns one accumulator that walks a
// strided set of k in ascending order. An implementation per instruction set gives the bits of the oracle
// (matrix_unit.h), for all inputs: out-of-range blocks and special values take a slow path, per block.
#pragma once
// nvcc: u[0] = static_cast<uint32_t>(qf::exponent_code(x[0], -14));

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

/// Exponents enter a chain as codes: small non-negative integers, kept as bytes where the input format's exponents lie
/// in -14 .. 15 and as 16-bit words elsewhere, so that one vector instruction handles four or two panels at once. The
/// sum of two codes tells what the product is: zero * finite < finite * finite < special * anything, and the sum of two
/// finite ones is their exponents' sum plus twice `bias`.
struct ExponentCode {
  int bytes;
  int bias;
  int special;  // Inf and NaN; a zero's code is 0
};

/// `lowest`: MatrixUnit::input_exponent. fp16, e5m2 and e4m3 (-14 or -6) have no exponent above 15.
QF_HD constexpr ExponentCode exponent_code_of(int lowest) {
  return lowest >= -14 ? ExponentCode{1, 46, 127} : ExponentCode{2, 512, 2000};
}
inline constexpr ExponentCode kByteCode = exponent_code_of(-14), kWordCode = exponent_code_of(-126);

/// Code of x's exponent as the matrix unit sees it: clamped to the format's smallest normal exponent `lowest`.
QF_HD inline int exponent_code(float x, int lowest) {
  const ExponentCode code = exponent_code_of(lowest);
  const uint32_t magnitude = float_bits(x) & 0x7FFFFFFFu;
  if (magnitude == 0) return 0;
  if (magnitude >= 0x7F800000u) return code.special;
  const int exponent = static_cast<int>(magnitude >> 23) - 127;
  return (exponent < lowest ? lowest : exponent) + code.bias;
}

/// Where the codes of a panel lie. Panels 4 g .. 4 g + 3 (words: 2 g, 2 g + 1) share 64 bytes for each k: lane
/// panel % 4 (% 2) of the 16 columns' 32-bit cells.
inline constexpr int kCellBytes = 64;  // of 16 columns
struct PanelCodes {
  uint8_t* cells;  // [k][16] cells of 32 bits
  int lane;
};
inline int panels_per_cell(int lowest) { return 4 / exponent_code_of(lowest).bytes; }

inline void put_exponent_code(const PanelCodes& codes, int64_t k, int column, int lowest, float x) {
  const int code = exponent_code(x, lowest), bytes = exponent_code_of(lowest).bytes;
  uint8_t* at = codes.cells + k * kCellBytes + column * 4 + codes.lane * bytes;
  at[0] = static_cast<uint8_t>(code);
  if (bytes == 2) at[1] = static_cast<uint8_t>(code >> 8);
}

/// A row's code in every lane of a cell.
QF_HD inline uint32_t row_cell(float x, int lowest) {
  return static_cast<uint32_t>(exponent_code(x, lowest)) *
         (exponent_code_of(lowest).bytes == 1 ? 0x01010101u : 0x10001u);
}

/// Rows of the left operand, numbers of the unit's input format: value[row * ld + k], cell[row * ld + k] = row_cell of
/// it.
struct ChainRows {
  const float* value;
  const uint32_t* cell;
  int64_t ld;
};

/// One panel of the right operand: value[k * 16 + column], and its codes.
struct ChainPanel {
  const float* value;
  PanelCodes codes;
};

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
