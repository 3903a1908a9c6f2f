// A panel's weights as the numbers that enter the arithmetic.
//
// Every rule on codes has the form narrow((q - base) * scale + add). The product is exact in fp32 (few bits); so is the
// sum (common unit), except with stored float offsets, where it is rounded to odd: either way one rounding is left.
// `group_rule` is the only place that knows the rules; the loops only apply them.
#pragma once

#include "kernels/pack/packed_weight.h"
#include "numerics/isa.h"

namespace qf {

struct GroupRule {
  alignas(64) float base[kPanelWidth];
  alignas(64) float scale[kPanelWidth];
  alignas(64) float add[kPanelWidth];
  Narrow narrow;
  bool odd;   // the sum is rounded to odd (stored float offsets), see round_to_odd.h
  bool tame;  // scales and addends lie below 2^100: no overflow, no NaN, whatever the order of operations
};

GroupRule group_rule(Isa isa, WeightRule rule, const PackedWeight& weight, int64_t panel, int64_t group);

/// k in [k_begin, k_end) of a panel: value[(k - k_begin) * 16 + column], column exponents in pairs of k unless null.
/// k_begin and k_end are even (as groups are) where exponents are wanted.
void dequantize(Isa isa, WeightRule rule, const PackedWeight& weight, int64_t panel, int64_t k_begin, int64_t k_end,
                int lowest_exponent, float* value, int16_t* exponent);

/// One stretch of k inside one group, per instruction set; codes [count][8].
struct CodeStretch {
  const uint8_t* codes;
  int64_t count;
  int lowest_exponent;
  float* value;
  int16_t* exponent;  // [count / 2][16][2], may be null
};
namespace avx512 {
void dequantize_stretch(const GroupRule& rule, const CodeStretch& stretch);
/// Dense weights [k_count][16] of fp16 or bf16 with their format's exponents.
void widen_dense(Format format, const uint16_t* bits, int64_t k_count, float* value, int16_t* exponent);
}  // namespace avx512
namespace avx2 {
void dequantize_stretch(const GroupRule& rule, const CodeStretch& stretch);
}

}  // namespace qf
