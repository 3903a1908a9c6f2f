#include <immintrin.h>

#include "kernels/emulate/convert.h"
#include "kernels/emulate/dequantize.h"

namespace qf::avx2 {
namespace {

template <Narrow narrow>
__m256 narrowed(__m256 x) {
  if constexpr (narrow == Narrow::fp16) {
    return _mm256_cvtph_ps(_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  if constexpr (narrow == Narrow::bf16) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i sum = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF)));
    const __m256 rounded = _mm256_castsi256_ps(_mm256_and_si256(sum, _mm256_set1_epi32(static_cast<int>(0xFFFF0000u))));
    return _mm256_blendv_ps(rounded, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  }
  return x;
}

/// Columns first .. first + 7, whose codes are the low (first = 0) or high (first = 8) nibbles.
template <Narrow narrow>
void run(const GroupRule& rule, const CodeStretch& s, int first) {
  const __m256 base = _mm256_load_ps(rule.base + first), scale = _mm256_load_ps(rule.scale + first);
  const __m256 add = _mm256_load_ps(rule.add + first);
  const __m128i nibble = _mm_set1_epi8(15);
  for (int64_t k = 0; k < s.count; ++k) {
    __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(s.codes + k * 8));
    if (first != 0) bytes = _mm_srli_epi16(bytes, 4);
    const __m256 q = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_and_si128(bytes, nibble)));
    const __m256 value = _mm256_fmadd_ps(_mm256_sub_ps(q, base), scale, add);
    _mm256_storeu_ps(s.value + k * kPanelWidth + first, narrowed<narrow>(value));
  }
}

}  // namespace

void dequantize_stretch(const GroupRule& rule, const CodeStretch& stretch) {
  for (const int first : {0, 8}) {
    switch (rule.narrow) {
      case Narrow::none: run<Narrow::none>(rule, stretch, first); break;
      case Narrow::fp16: run<Narrow::fp16>(rule, stretch, first); break;
      case Narrow::bf16: run<Narrow::bf16>(rule, stretch, first); break;
    }
  }
  if (stretch.exponent.cells == nullptr) return;
  panel_codes(stretch.lowest_exponent, stretch.value, stretch.exponent, stretch.count);
}

}  // namespace qf::avx2
