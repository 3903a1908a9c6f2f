// What the per-instruction-set files of dot_chain share: declarations only (see the note in chain_tile.h on inline
// code).
#pragma once

#include "numerics/dot_chain.h"

namespace qf {

inline constexpr int kMaxPanels = 4;

/// Numbers of the two kinds of codes, for both: kPanels of them share a cell; kLargestZero is the largest sum that has
/// a zero in it, kLargestFinite the largest without Inf or NaN; a sum plus kToField is E as fp32's exponent field;
/// below the field kLowest a product may be zero.
struct ByteCodes {
  static constexpr int kBytes = 1, kPanels = 4, kMask = 0xFF;
  static constexpr int kLargestZero = 15 + kByteCode.bias, kLargestFinite = 30 + 2 * kByteCode.bias;
  static constexpr int kToField = 127 - 2 * kByteCode.bias;
  static constexpr int kLowest = -28 + 127;
};
struct WordCodes {
  static constexpr int kBytes = 2, kPanels = 2, kMask = 0xFFFF;
  static constexpr int kLargestZero = 127 + kWordCode.bias, kLargestFinite = 254 + 2 * kWordCode.bias;
  static constexpr int kToField = 127 - 2 * kWordCode.bias;
  static constexpr int kLowest = 28;
};

enum class Finish : uint8_t { fp32_toward_zero, fp16_nearest_even };

/// The oracle's step, compiled once for the baseline instruction set. b has a stride of kPanelWidth.
float chain_exact_step(const MatrixUnit& unit, const float* a, const float* b, int count, float c);

/// Each returns false when the unit has no fast form (its products per step are not 4, 8 or 16).
bool chain_portable(const ChainArgs& args);
bool chain_avx2(const ChainArgs& args);
bool chain_avx512(const ChainArgs& args);

}  // namespace qf
