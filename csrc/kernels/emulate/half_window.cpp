#include "kernels/emulate/half_window.h"

#include <algorithm>
#include <cmath>

#include "base/bits.h"
#include "base/half.h"

namespace qf {
namespace {

int exponent_of(float x) { return static_cast<int>(float_bits(x) >> 23 & 255) - 127; }

}  // namespace

ExponentSpan span_of(const float* values, int64_t count) {
  int lowest = 1000, highest = -1000;  // local: the loop is vectorised
  for (int64_t i = 0; i < count; ++i) {
    const bool zero = (float_bits(values[i]) << 1) == 0;
    const int exponent = exponent_of(values[i]);
    lowest = std::min(lowest, zero ? 1000 : exponent);
    highest = std::max(highest, zero ? -1000 : exponent);
  }
  return {lowest, highest};
}

/// (q - base) * s + o with |q - base| <= 15, s and o bf16 numbers (8 significant bits), rounded to bf16 or not at all.
/// Rounding moves no number across a power of two, but may reach the next one.
ExponentSpan span_of(const GroupRule& rule) {
  ExponentSpan span;
  for (int c = 0; c < kPanelWidth; ++c) {
    const float s = std::fabs(rule.scale[c]), o = std::fabs(rule.add[c]);
    const int es = exponent_of(s), eo = exponent_of(o);
    if (round_to_bf16(s) != s || round_to_bf16(o) != o) {
      span.join(-127, 128);
    } else if (o == 0.0f) {
      if (s != 0.0f) span.join(es, es + 4);
    } else if (s == 0.0f) {
      span.join(eo, eo);
    } else {
      // a small offset: alone (q = base), or at most half a scale away from a multiple of s; else all terms are
      // multiples of 2^(es - 8)
      span.join(eo < es - 1 ? std::min(eo, es - 1) : es - 8, std::max(es + 5, eo + 1) + 1);
    }
  }
  return span;
}

ExponentSpan span_of(Isa isa, WeightRule rule, const PackedWeight& weight, int64_t panel) {
  ExponentSpan span;
  if (rule == WeightRule::dense) {
    const uint16_t* bits = weight.dense.data() + panel * weight.k * kPanelWidth;
    int16_t least = 0x7FFF, most = 0;  // magnitudes of bf16 numbers, in the order of their bits; vectorised
    for (int64_t i = 0; i < weight.k * kPanelWidth; ++i) {
      const auto magnitude = static_cast<int16_t>(bits[i] & 0x7FFF);
      least = std::min(least, magnitude == 0 ? int16_t{0x7FFF} : magnitude);
      most = std::max(most, magnitude);
    }
    if (most > 0) span.join((least >> 7) - 127, (most >> 7) - 127);
    return span;
  }
  for (int64_t group = 0; group < weight.groups(); ++group)
    span.join(span_of(group_rule(isa, rule, weight, panel, group)));
  return span;
}

std::optional<int> half_window(const ExponentSpan& span) {
  if (span.lowest > span.highest) return 0;  // all zero
  const int shift = 14 - span.highest;
  if (span.lowest + shift < -14 || shift > 30 || shift < -30) return std::nullopt;
  return shift;
}

}  // namespace qf
