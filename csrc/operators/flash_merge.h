// How FlashAttention weighs the parts of split keys against each other: host and device. Sfu: SfuView, or what has its
// ex2, rcp and lg2.
// nvcc: x[0] = qf::flash_log_sum(qf::FlashMerge::fa3, sfu, x[1], x[2], x[3]) + qf::butterfly_sum(x, 96, 32);
#pragma once

#include <cmath>

#include "numerics/special_function_unit.h"
#include "operators/elements.h"

namespace qf {

/// fa3: shares w / W with one reciprocal of the sum W. fa2: shares exp(l - log of the sum of exp).
enum class FlashMerge : uint8_t { fa2, fa3 };

/// scale * log2(e), which the host computes in double from the float scale.
QF_HD_INLINE float flash_log2_scale(float scale) {
  return static_cast<float>(static_cast<double>(scale) * 1.4426950408889634074);
}

/// Logarithm of a part's sum of exponentials, from its largest score and its sum.
template <class Sfu>
QF_HD_INLINE float flash_log_sum(FlashMerge merge, const Sfu& sfu, float scale, float largest, float sum) {
  const float ln2 = bits_float(0x3F317218u);
  const float log = flush_subnormal(mul_rn(sfu.lg2(sum), ln2));
  if (merge == FlashMerge::fa3) return fmaf(mul_rn(flash_log2_scale(scale), ln2), flush_subnormal(largest), log);
  return fmaf(flush_subnormal(largest), scale, log);
}

/// e^x by ex2: a part's weight before normalisation, x = its logarithm - the largest one.
template <class Sfu>
QF_HD_INLINE float flash_exp(const Sfu& sfu, float x) {
  return sfu.ex2(flush_subnormal(mul_rn(flush_subnormal(x), bits_float(0x3FB8AA3Bu))));
}

/// What flash_share takes: of the sum of the weights.
template <class Sfu>
QF_HD_INLINE float flash_normaliser(FlashMerge merge, const Sfu& sfu, float largest, float sum) {
  if (merge == FlashMerge::fa3) return sfu.rcp(sum);
  return fmaf(sfu.lg2(sum), bits_float(0x3F317218u), largest);
}

/// Share of a part, from its logarithm and its weight.
template <class Sfu>
QF_HD_INLINE float flash_share(FlashMerge merge, const Sfu& sfu, float log_sum, float weight, float normaliser) {
  if (merge == FlashMerge::fa3) return flush_subnormal(mul_rn(weight, normaliser));
  return flash_exp(sfu, add_rn(log_sum, -normaliser));
}

/// Sum over `lanes` lanes by butterfly (xor lanes / 2, ..., 1); lane t first adds values t, t + lanes, ... from +0.
QF_HD_INLINE float butterfly_sum(const float* values, int64_t count, int lanes) {
  float sums[32] = {};
  for (int lane = 0; lane < lanes; ++lane) {
    for (int64_t i = lane; i < count; i += lanes) sums[lane] = add_rn(sums[lane], values[i]);
  }
  for (int offset = lanes / 2; offset > 0; offset /= 2) {
    // both partners hold the same sum
    for (int lane = 0; lane < offset; ++lane) sums[lane] = add_rn(sums[lane], sums[lane + offset]);
  }
  return sums[0];
}

/// Lanes that add the weights.
QF_HD_INLINE int flash_merge_lanes(int64_t head_size) { return head_size <= 64 ? 16 : 32; }

}  // namespace qf
