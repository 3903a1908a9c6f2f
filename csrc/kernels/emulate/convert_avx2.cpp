#include <immintrin.h>

#include "base/half.h"
#include "kernels/emulate/convert.h"

namespace qf::avx2 {
namespace {

constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

/// column_exponent of eight values, as int32.
__m256i column_exponents(const float* values, __m256i lowest) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values));
  const __m256i magnitude = _mm256_slli_epi32(bits, 1);
  const __m256i field = _mm256_srli_epi32(magnitude, 24);
  __m256i e = _mm256_max_epi32(_mm256_sub_epi32(field, _mm256_set1_epi32(127)), lowest);
  e = _mm256_blendv_epi8(e, _mm256_set1_epi32(kSpecialExponent), _mm256_cmpeq_epi32(field, _mm256_set1_epi32(255)));
  return _mm256_blendv_epi8(e, _mm256_set1_epi32(kZeroExponent), _mm256_cmpeq_epi32(magnitude, _mm256_setzero_si256()));
}

}  // namespace

void narrow_half(float* values, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    _mm256_storeu_ps(values + i, _mm256_cvtph_ps(_mm256_cvtps_ph(_mm256_loadu_ps(values + i), kNearest)));
  }
  for (; i < count; ++i) values[i] = round_to_half(values[i]);
}

void widen_half(const uint16_t* bits, float* values, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    _mm256_storeu_ps(values + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bits + i))));
  }
  for (; i < count; ++i) values[i] = half_to_float(bits[i]);
}

void store_half(const float* values, uint16_t* bits, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256 v = _mm256_loadu_ps(values + i);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m128i mask = _mm_packs_epi32(_mm256_castsi256_si128(nan), _mm256_extracti128_si256(nan, 1));
    const __m128i half = _mm_blendv_epi8(_mm256_cvtps_ph(v, kNearest), _mm_set1_epi16(0x7FFF), mask);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(bits + i), half);
  }
  for (; i < count; ++i) bits[i] = float_to_half(values[i]);
}

void row_exponents(int lowest, const float* values, int16_t* exponents, int64_t count) {
  const __m256i floor = _mm256_set1_epi32(lowest), bias = _mm256_set1_epi32(127);
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256i e = _mm256_add_epi32(column_exponents(values + i, floor), bias);
    const __m128i packed = _mm_packs_epi32(_mm256_castsi256_si128(e), _mm256_extracti128_si256(e, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(exponents + i), packed);
  }
  for (; i < count; ++i) exponents[i] = row_exponent(values[i], lowest);
}

void panel_exponents(int lowest, const float* values, int16_t* exponents, int64_t k_count) {
  const __m256i floor = _mm256_set1_epi32(lowest), low_half = _mm256_set1_epi32(0xFFFF);
  for (int64_t k = 0; k < k_count; k += 2) {
    for (int c = 0; c < kPanelWidth; c += 8) {
      const __m256i first = column_exponents(values + k * kPanelWidth + c, floor);
      const __m256i second = column_exponents(values + (k + 1) * kPanelWidth + c, floor);
      const __m256i pair = _mm256_or_si256(_mm256_and_si256(first, low_half), _mm256_slli_epi32(second, 16));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(exponents + panel_exponent_index(k, c)), pair);
    }
  }
}

}  // namespace qf::avx2
