// ex2 and CUDA's expf for 16 numbers at once: the integer steps of numerics/special_function_unit.h and cuda_math.h,
// lane by lane, with gathers into the same tables. Include from a file that is compiled for AVX-512, in its unnamed
// namespace.
#pragma once

#include <immintrin.h>

#include "numerics/special_function_unit.h"

namespace qf {
namespace {

/// (c0 + d * (c1 + d * c2)) >> 38 for eight lanes, low halves.
inline __m256i curve_pieces(const SfuCurve& curve, __m256i piece, __m256i d) {
  const long long* table = reinterpret_cast<const long long*>(curve.pieces);
  const __m256i offset = _mm256_mullo_epi32(piece, _mm256_set1_epi32(3));
  const __m512i c0 = _mm512_i32gather_epi64(offset, table, 8);
  const __m512i c1 = _mm512_i32gather_epi64(offset, table + 1, 8);
  const __m512i c2 = _mm512_i32gather_epi64(offset, table + 2, 8);
  const __m512i x = _mm512_cvtepu32_epi64(d);
  const __m512i inner = _mm512_add_epi64(c1, _mm512_mullo_epi64(x, c2));
  return _mm512_cvtepi64_epi32(_mm512_srai_epi64(_mm512_add_epi64(c0, _mm512_mullo_epi64(x, inner)), 38));
}

/// SfuCurve::at.
inline __m512i curve_at(const SfuCurve& curve, __m512i index) {
  const __m512i piece = _mm512_srli_epi32(index, 16), d = _mm512_and_si512(index, _mm512_set1_epi32(0xFFFF));
  const __m256i low = curve_pieces(curve, _mm512_castsi512_si256(piece), _mm512_castsi512_si256(d));
  const __m256i high = curve_pieces(curve, _mm512_extracti64x4_epi64(piece, 1), _mm512_extracti64x4_epi64(d, 1));
  const __m512i base = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
  // 64-bit words of carries, read as 32-bit ones: the same order on a little-endian machine
  const __m512i words = _mm512_i32gather_epi32(_mm512_srli_epi32(index, 5), curve.carries, 4);
  const __m512i shifted = _mm512_srlv_epi32(words, _mm512_and_si512(index, _mm512_set1_epi32(31)));
  const __m512i carry = _mm512_and_si512(shifted, _mm512_set1_epi32(1));
  return _mm512_add_epi32(_mm512_add_epi32(_mm512_set1_epi32(0x3F000000), base), carry);
}

/// SfuView::ex2.
inline __m512 ex2_lanes(const SfuCurve& curve, __m512 x) {
  const __mmask16 normal = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-252.0f), _CMP_GE_OQ) &
                           _mm512_cmp_ps_mask(x, _mm512_set1_ps(128.0f), _CMP_LT_OQ);
  const __m512i zero = _mm512_setzero_si512();
  const __m512i t = _mm512_maskz_cvttps_epi32(normal, _mm512_mul_ps(x, _mm512_set1_ps(0x1p23f)));
  const __mmask16 down = _mm512_cmplt_epi32_mask(t, zero) & _mm512_test_epi32_mask(t, _mm512_set1_epi32(0x7FFFFF));
  const __m512i v = _mm512_mask_sub_epi32(t, down, t, _mm512_set1_epi32(1));
  const __m512i exponent = _mm512_srai_epi32(v, 23);
  const __m512i bits = curve_at(curve, _mm512_and_si512(v, _mm512_set1_epi32(0x7FFFFF)));
  const __m512i field = _mm512_add_epi32(_mm512_srli_epi32(bits, 23), exponent);
  const __mmask16 kept = normal & _mm512_cmpgt_epi32_mask(field, zero);
  __m512i result = _mm512_maskz_add_epi32(kept, bits, _mm512_slli_epi32(exponent, 23));
  if (normal != 0xFFFF) {  // 128 and more is Inf, below -252 the zero that is already there
    const __mmask16 large = _mm512_cmp_ps_mask(x, _mm512_set1_ps(128.0f), _CMP_GE_OQ);
    result = _mm512_mask_mov_epi32(result, large, _mm512_set1_epi32(0x7F800000));
    result = _mm512_mask_mov_epi32(result, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q),
                                   _mm512_set1_epi32(static_cast<int>(kCanonicalNan)));
  }
  return _mm512_castsi512_ps(result);
}

struct ExpLanes {
  __m512 scale, mantissa;
};

/// cuda_exp_parts.
inline ExpLanes cuda_exp_lanes(const SfuCurve& ex2_curve, __m512 x) {
  const auto constant = [](int bits) { return _mm512_castsi512_ps(_mm512_set1_epi32(bits)); };
  __m512 a = _mm512_fmadd_ps(x, constant(0x3BBB989D), _mm512_set1_ps(0.5f));
  a = _mm512_max_ps(a, _mm512_setzero_ps());  // NaN becomes the second operand, 0
  a = _mm512_min_ps(a, _mm512_set1_ps(1.0f));
  // The hardware's own form: a * 252 + (2^23 * 1.5) toward minus infinity is the whole part in the low bits.
  const __m512 magic = _mm512_set1_ps(12582912.0f);
  const __m512 sum = _mm512_fmadd_round_ps(a, _mm512_set1_ps(252.0f), magic, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  const __m512i whole = _mm512_sub_epi32(_mm512_castps_si512(sum), _mm512_castps_si512(magic));
  const __m512 minus_exponent = _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_set1_epi32(126), whole));
  __m512 f = _mm512_fmadd_ps(x, constant(0x3FB8AA3B), minus_exponent);
  f = _mm512_fmadd_ps(x, constant(0x32A57060), f);
  const __m512i scale = _mm512_slli_epi32(_mm512_add_epi32(whole, _mm512_set1_epi32(1)), 23);
  return {_mm512_castsi512_ps(scale), ex2_lanes(ex2_curve, f)};
}

}  // namespace
}  // namespace qf
