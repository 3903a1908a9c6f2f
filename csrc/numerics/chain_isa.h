// What the per-instruction-set files of dot_chain share: declarations only (see the note in chain_tile.h on inline
// code).
#pragma once

#include "numerics/dot_chain.h"

namespace qf {

inline constexpr int kMaxPanels = 4;

enum class Finish : uint8_t { fp32_toward_zero, fp16_nearest_even };

/// The oracle's step, compiled once for the baseline instruction set. b has a stride of kPanelWidth.
float chain_exact_step(const MatrixUnit& unit, const float* a, const float* b, int count, float c);

/// Each returns false when the unit has no fast form (its products per step are not 4, 8 or 16).
bool chain_portable(const ChainArgs& args);
bool chain_avx2(const ChainArgs& args);
bool chain_avx512(const ChainArgs& args);

}  // namespace qf
