// bf16 numbers seen through fp16's window. Exponents of bf16 take codes of 16 bits, those of fp16 bytes, which serve
// twice as many panels at once (numerics/dot_chain.h). Multiplied by a power of two, the numbers of most layers lie in
// fp16's normal range, where the same unit does the same with them: exponents, cuts and sums scale along, and the way
// back is exact. Numbers that do not fit stay as they are.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/emulate/dequantize.h"

namespace qf {

inline constexpr int kHalfLowest = -14;  // fp16's smallest normal exponent

/// Exponents of the non-zero numbers of a set. Inf and NaN count as 128, subnormals as -127.
struct ExponentSpan {
  int lowest = 1000, highest = -1000;

  void join(int least, int most) {
    lowest = least < lowest ? least : lowest;
    highest = most > highest ? most : highest;
  }
  void join(const ExponentSpan& other) { join(other.lowest, other.highest); }
};

/// Of bf16 numbers.
ExponentSpan span_of(const float* values, int64_t count);
/// Of a panel's numbers.
ExponentSpan span_of(Isa isa, WeightRule rule, const PackedWeight& weight, int64_t panel);

/// Those of a weight's panels, found when they are first asked for. Threads may ask for different panels at once.
struct PanelSpans {
  WeightRule rule{};
  std::vector<std::optional<ExponentSpan>> panels;

  /// Before a call: one that takes the numbers by another rule forgets what was found.
  void begin(WeightRule wanted, int64_t count) {
    if (rule != wanted || panels.size() != static_cast<size_t>(count)) panels.assign(static_cast<size_t>(count), {});
    rule = wanted;
  }
  const ExponentSpan& of(Isa isa, const PackedWeight& weight, int64_t panel) {
    std::optional<ExponentSpan>& span = panels[static_cast<size_t>(panel)];
    if (!span) span = span_of(isa, rule, weight, panel);
    return *span;
  }
};

/// s with numbers * 2^s between 2^-14 and 2^15, |s| <= 30; nothing where there is none. With two such factors neither a
/// sum nor its last bit leaves fp32's normal range on the way back.
std::optional<int> half_window(const ExponentSpan& span);

}  // namespace qf
