#include "kernels/emulate/half_window.h"

#include <algorithm>

#include "base/bits.h"
#include "kernels/emulate/aligned_array.h"

namespace qf {

ExponentSpan span_of(const float* values, int64_t count) {
  // magnitudes in the order of their bits, of which bf16 numbers have the upper 16; vectorised
  int16_t least = 0x7FFF, most = 0;
  for (int64_t i = 0; i < count; ++i) {
    const auto magnitude = static_cast<int16_t>((float_bits(values[i]) >> 16) & 0x7FFF);
    least = std::min(least, magnitude == 0 ? int16_t{0x7FFF} : magnitude);
    most = std::max(most, magnitude);
  }
  return most == 0 ? ExponentSpan{} : ExponentSpan{(least >> 7) - 127, (most >> 7) - 127};
}

ExponentSpan span_of(Isa isa, WeightRule rule, const PackedWeight& weight, int64_t panel) {
  AlignedArray<float> values(static_cast<size_t>(weight.k * kPanelWidth));
  dequantize(isa, rule, weight, panel, 0, weight.k, {0, 1.0f}, values.get(), {});
  return span_of(values.get(), weight.k * kPanelWidth);
}

std::optional<int> half_window(const ExponentSpan& span) {
  if (span.lowest > span.highest) return 0;  // all zero
  const int shift = 14 - span.highest;
  if (span.lowest + shift < -14 || shift > 30 || shift < -30) return std::nullopt;
  return shift;
}

}  // namespace qf
