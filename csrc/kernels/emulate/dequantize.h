// A panel's weights as the numbers that enter the arithmetic.
//
// Every rule on codes has the form narrow((q - base) * scale + add). The product is exact in fp32 (few bits); SumRule
// says how the sum is taken so that one rounding is left. `group_rule` is the only place that knows the rules; the
// loops only apply them.
#pragma once

#include "kernels/pack/packed_weight.h"
#include "numerics/isa.h"

namespace qf {

enum class SumRule : uint8_t {
  common_unit,  // exact in fp32, and still so with another 2^12 scales in it
  exact,        // a stored float offset; exact in fp32 for every code
  to_odd,       // a stored float offset; rounded to odd, see round_to_odd.h
};

struct GroupRule {
  alignas(64) float base[kPanelWidth];
  alignas(64) float scale[kPanelWidth];
  alignas(64) float add[kPanelWidth];
  Narrow narrow;
  SumRule sum;
  bool tame;  // scales and addends lie below 2^100: no overflow, no NaN, whatever the order of operations
};

GroupRule group_rule(Isa isa, WeightRule rule, const PackedWeight& weight, int64_t panel, int64_t group);

/// How numbers are handed on: times a power of two (1 unless half_window.h found another), with exponent codes of the
/// format whose smallest normal exponent is `lowest`.
struct Handing {
  int lowest;
  float factor;
};

/// k in [k_begin, k_end) of a panel: value[(k - k_begin) * 16 + column], and exponent codes unless their cells are null
/// (the cells' other lanes are kept).
void dequantize(Isa isa, WeightRule rule, const PackedWeight& weight, int64_t panel, int64_t k_begin, int64_t k_end,
                const Handing& handing, float* value, const PanelCodes& exponent);

/// The same for all panels that share cells (panels_per_cell): panel + p at value + p * panel_stride.
void dequantize_shared(Isa isa, WeightRule rule, const PackedWeight& weight, int64_t panel, int64_t k_begin,
                       int64_t k_end, const Handing& handing, float* value, int64_t panel_stride, uint8_t* cells);

/// One stretch of k inside one group, per instruction set; codes [count][8].
struct CodeStretch {
  const uint8_t* codes;
  int64_t count;
  int lowest_exponent;
  float* value;
  PanelCodes exponent;  // its cells may be null
};
namespace avx512 {
void dequantize_stretch(const GroupRule& rule, const CodeStretch& stretch);
/// Panels that share cells, four of numbers in fp16's range or two of bf16 numbers, over an even count of k. Strides:
/// from a panel to the next.
struct SharedPanels {
  int panels;
  int64_t count;
  float* value;
  int64_t value_stride;
  uint8_t* cells;
};
/// One rule per panel, all tame; they narrow to fp16 or bf16, all to the same.
void dequantize_shared(const GroupRule* rules, const uint8_t* codes, int64_t code_stride, const SharedPanels& panels);
void widen_shared(Format format, float factor, const uint16_t* bits, int64_t bit_stride, const SharedPanels& panels);
/// Dense weights [k_count][16] of fp16 or bf16 with their format's exponents.
void widen_dense(Format format, const uint16_t* bits, int64_t k_count, float* value, const PanelCodes& exponent);
}  // namespace avx512
namespace avx2 {
void dequantize_stretch(const GroupRule& rule, const CodeStretch& stretch);
}

}  // namespace qf
