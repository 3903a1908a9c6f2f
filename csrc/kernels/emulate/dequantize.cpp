#include "kernels/emulate/dequantize.h"

#include <algorithm>
#include <cmath>

#include "base/bits.h"
#include "base/error.h"
#include "base/half.h"
#include "kernels/emulate/convert.h"
#include "kernels/emulate/round_to_odd.h"
#include "kernels/parts.h"

namespace qf {
namespace {

float narrowed(Narrow narrow, float x) {
  switch (narrow) {
    case Narrow::none: return x;
    case Narrow::fp16: return round_to_half(x);
    case Narrow::bf16: return round_to_bf16(x);
  }
  return x;
}

/// All 16 codes of all 16 columns, then a look-up per weight.
void dequantize_stretch(Isa isa, const GroupRule& rule, const CodeStretch& s) {
  float values[16][kPanelWidth];
  for (int q = 0; q < 16; ++q) {
    for (int c = 0; c < kPanelWidth; ++c) {
      const float product = (static_cast<float>(q) - rule.base[c]) * rule.scale[c];
      const float sum = rule.sum == SumRule::to_odd ? add_to_odd(product, rule.add[c]) : product + rule.add[c];
      values[q][c] = narrowed(rule.narrow, sum);
    }
  }
  for (int64_t k = 0; k < s.count; ++k) {
    for (int j = 0; j < 8; ++j) {
      const int low = s.codes[k * 8 + j] & 15, high = s.codes[k * 8 + j] >> 4;
      s.value[k * kPanelWidth + j] = values[low][j];
      s.value[k * kPanelWidth + j + 8] = values[high][j + 8];
    }
  }
  if (s.exponent.cells != nullptr) panel_code_span(isa, s.lowest_exponent, s.value, s.exponent, s.count);
}

GroupRule scaled(GroupRule rule, float factor) {
  if (factor == 1.0f) return rule;
  for (int c = 0; c < kPanelWidth; ++c) rule.scale[c] *= factor, rule.add[c] *= factor;
  return rule;
}

void run_stretch(Isa isa, const GroupRule& rule, const CodeStretch& stretch) {
#if defined(__x86_64__)
  if (rule.tame && isa == Isa::avx512) return avx512::dequantize_stretch(rule, stretch);
  if (rule.tame && isa == Isa::avx2) return avx2::dequantize_stretch(rule, stretch);
#endif
  dequantize_stretch(isa, rule, stretch);
}

/// Whether (q - base) * s + o is exact in fp32 for every code, column by column: |q - base| < 16, s has at most 11
/// significant bits, and o, a bf16 number, 8. With exponents e and f of s and o all terms are multiples of the smaller
/// of 2^(e - 10) and 2^(f - 7), and the sum is below 2^24 of them.
bool sums_are_exact(const GroupRule& r) {
  bool exact = true;
  for (int c = 0; c < kPanelWidth; ++c) {
    const uint32_t offset = float_bits(r.add[c]), scale = float_bits(r.scale[c]);
    const auto exponent = [](uint32_t bits) { return std::max(static_cast<int>(bits >> 23 & 255), 1); };
    const int gap = exponent(scale) - exponent(offset);
    const bool zero = (offset << 1) == 0 || (scale << 1) == 0;
    exact &= (offset & 0xFFFF) == 0 && (zero || (gap >= -12 && gap <= 11));
  }
  return exact;
}

}  // namespace

GroupRule group_rule(Isa isa, WeightRule rule, const PackedWeight& w, int64_t panel, int64_t group) {
  require(w.offsets.empty() || rule == WeightRule::bf16_offset || rule == WeightRule::real,
          "weights with float offsets have no rule '", weight_rule_text(rule), "'");
  const int64_t at = (panel * w.groups() + group) * kPanelWidth;
  GroupRule r{};
  widen_span(isa, w.format, w.scales.data() + at, r.scale, kPanelWidth);
  for (int c = 0; c < kPanelWidth; ++c) r.base[c] = w.zeros[static_cast<size_t>(at + c)];
  const auto fold_zero = [&](float base) {  // add = rounded (base - z) * s, subtracted from the code: base
    for (int c = 0; c < kPanelWidth; ++c) {
      r.add[c] = (base - r.base[c]) * r.scale[c];
      r.base[c] = base;
    }
    narrow_span(isa, r.narrow, r.add, kPanelWidth);
  };
  switch (rule) {
    case WeightRule::fp16_sub_mul: r.narrow = Narrow::fp16; break;
    case WeightRule::bf16_sub_mul: r.narrow = Narrow::bf16; break;
    case WeightRule::fp16_fma: r.narrow = Narrow::fp16, fold_zero(0.0f); break;
    case WeightRule::bf16_fma: r.narrow = Narrow::bf16, fold_zero(0.0f); break;
    case WeightRule::bf16_offset:
      r.narrow = Narrow::bf16;
      if (w.offsets.empty()) fold_zero(8.0f);
      break;
    case WeightRule::integer:
      for (float& scale : r.scale) scale = 1.0f;
      break;
    case WeightRule::real:
    case WeightRule::dense: break;
  }
  if (!w.offsets.empty()) {
    std::copy_n(w.offsets.data() + at, kPanelWidth, r.add);
    r.sum = sums_are_exact(r) ? SumRule::exact : SumRule::to_odd;
  }
  r.tame = true;
  for (int c = 0; c < kPanelWidth; ++c) r.tame &= std::fabs(r.scale[c]) < 0x1p100f && std::fabs(r.add[c]) < 0x1p100f;
  return r;
}

void dequantize(Isa isa, WeightRule rule, const PackedWeight& w, int64_t panel, int64_t k_begin, int64_t k_end,
                const Handing& handing, float* value, const PanelCodes& exponent) {
  if (rule == WeightRule::dense) {
    const int64_t count = (k_end - k_begin) * kPanelWidth;
    if (w.format == Format::fp32) {
      std::copy_n(w.wide.data() + (panel * w.k + k_begin) * kPanelWidth, count, value);
      return;
    }
#if defined(__x86_64__)
    if (isa == Isa::avx512 && exponent.cells != nullptr && handing.factor == 1.0f) {
      return avx512::widen_dense(w.format, w.dense.data() + (panel * w.k + k_begin) * kPanelWidth, k_end - k_begin,
                                 value, exponent);
    }
#endif
    widen_span(isa, w.format, w.dense.data() + (panel * w.k + k_begin) * kPanelWidth, value, count);
    if (handing.factor != 1.0f) {
      for (int64_t i = 0; i < count; ++i) value[i] *= handing.factor;
    }
    if (exponent.cells != nullptr) panel_code_span(isa, handing.lowest, value, exponent, k_end - k_begin);
    return;
  }
  for (int64_t k = k_begin; k < k_end;) {
    const int64_t group = k / w.group, end = std::min(k_end, (group + 1) * w.group), at = (k - k_begin) * kPanelWidth;
    run_stretch(isa, scaled(group_rule(isa, rule, w, panel, group), handing.factor),
                {w.codes.data() + (panel * w.k + k) * 8,
                 end - k,
                 handing.lowest,
                 value + at,
                 {exponent.cells == nullptr ? nullptr : exponent.cells + (k - k_begin) * kCellBytes, exponent.lane}});
    k = end;
  }
}

void dequantize_shared(Isa isa, WeightRule rule, const PackedWeight& w, int64_t panel, int64_t k_begin, int64_t k_end,
                       const Handing& handing, float* value, int64_t panel_stride, uint8_t* cells) {
  const int panels = panels_per_cell(handing.lowest);
#if defined(__x86_64__)
  if (isa == Isa::avx512 && (k_end - k_begin) % 2 == 0) {
    if (rule == WeightRule::dense) {
      return avx512::widen_shared(w.format, handing.factor, w.dense.data() + (panel * w.k + k_begin) * kPanelWidth,
                                  w.k * kPanelWidth, {panels, k_end - k_begin, value, panel_stride, cells});
    }
    const Narrow own = narrow_of(w.format);
    for (int64_t k = k_begin; w.group % 2 == 0;) {
      const int64_t group = k / w.group, end = std::min(k_end, (group + 1) * w.group);
      GroupRule rules[4];
      bool fast = true;
      for (int p = 0; p < panels; ++p) {
        rules[p] = scaled(group_rule(isa, rule, w, panel + p, group), handing.factor);
        fast = fast && rules[p].tame && rules[p].narrow == own;
      }
      if (!fast) break;
      avx512::dequantize_shared(
          rules, w.codes.data() + (panel * w.k + k) * 8, w.k * 8,
          {panels, end - k, value + (k - k_begin) * kPanelWidth, panel_stride, cells + (k - k_begin) * kCellBytes});
      k = end;
      if (k == k_end) return;
    }
  }
#endif
  for (int p = 0; p < panels; ++p) {
    dequantize(isa, rule, w, panel + p, k_begin, k_end, handing, value + p * panel_stride, {cells, p});
  }
}

}  // namespace qf
