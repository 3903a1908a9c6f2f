#include <immintrin.h>

#include "base/half.h"
#include "kernels/emulate/convert.h"

namespace qf::avx2 {
namespace {

constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

/// exponent_code of eight values, as int32.
struct ExponentCodes {
  __m256i lowest, offset, special;

  explicit ExponentCodes(int format_lowest)
      : lowest(_mm256_set1_epi32(format_lowest + 127)),
        offset(_mm256_set1_epi32(exponent_code_of(format_lowest).bias - 127)),
        special(_mm256_set1_epi32(exponent_code_of(format_lowest).special)) {}
  __m256i operator()(const float* values) const {
    const __m256i magnitude = _mm256_slli_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(values)), 1);
    const __m256i field = _mm256_srli_epi32(magnitude, 24);
    const __m256i code = _mm256_add_epi32(_mm256_max_epi32(field, lowest), offset);
    const __m256i is_special = _mm256_cmpeq_epi32(field, _mm256_set1_epi32(255));
    const __m256i is_zero = _mm256_cmpeq_epi32(magnitude, _mm256_setzero_si256());
    return _mm256_andnot_si256(is_zero, _mm256_blendv_epi8(code, special, is_special));
  }
};

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

void row_cells(int lowest, const float* values, uint32_t* cells, int64_t count) {
  const ExponentCodes codes(lowest);
  const __m256i lanes = _mm256_set1_epi32(exponent_code_of(lowest).bytes == 1 ? 0x01010101 : 0x10001);
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(cells + i), _mm256_mullo_epi32(codes(values + i), lanes));
  }
  for (; i < count; ++i) cells[i] = row_cell(values[i], lowest);
}

void panel_codes(int lowest, const float* values, const PanelCodes& codes, int64_t k_count) {
  const ExponentCodes codes_of(lowest);
  const int bits = 8 * exponent_code_of(lowest).bytes;
  const __m128i shift = _mm_cvtsi32_si128(codes.lane * bits);
  const __m256i mask = _mm256_sll_epi32(_mm256_set1_epi32((1 << bits) - 1), shift);
  for (int64_t i = 0; i < k_count * kPanelWidth; i += 8) {
    __m256i* const cells = reinterpret_cast<__m256i*>(codes.cells + i * 4);
    const __m256i kept = _mm256_andnot_si256(mask, _mm256_loadu_si256(cells));
    _mm256_storeu_si256(cells, _mm256_or_si256(kept, _mm256_sll_epi32(codes_of(values + i), shift)));
  }
}

}  // namespace qf::avx2
