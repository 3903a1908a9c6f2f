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

/// a + b rounded to odd: add_to_odd of round_to_odd.h, operation by operation, for finite sums.
__m256 add_to_odd(__m256 a, __m256 b) {
  const __m256 sum = _mm256_add_ps(a, b), from_b = _mm256_sub_ps(sum, a);
  const __m256 residual = _mm256_add_ps(_mm256_sub_ps(a, _mm256_sub_ps(sum, from_b)), _mm256_sub_ps(b, from_b));
  const __m256i one = _mm256_set1_epi32(1), bits = _mm256_castps_si256(sum);
  const __m256i inexact = _mm256_castps_si256(_mm256_cmp_ps(residual, _mm256_setzero_ps(), _CMP_NEQ_OQ));
  const __m256i even = _mm256_cmpeq_epi32(_mm256_and_si256(bits, one), _mm256_setzero_si256());
  // one step toward the exact sum: away from zero where sum and residual agree in sign
  const __m256i differ = _mm256_srai_epi32(_mm256_xor_si256(_mm256_castps_si256(residual), bits), 31);
  const __m256i step = _mm256_and_si256(_mm256_or_si256(differ, one), _mm256_and_si256(inexact, even));
  return _mm256_castsi256_ps(_mm256_add_epi32(bits, step));
}

/// Columns first .. first + 7, whose codes are the low (first = 0) or high (first = 8) nibbles.
template <Narrow narrow, bool odd>
void run(const GroupRule& rule, const CodeStretch& s, int first) {
  const __m256 base = _mm256_load_ps(rule.base + first), scale = _mm256_load_ps(rule.scale + first);
  const __m256 add = _mm256_load_ps(rule.add + first);
  const __m128i nibble = _mm_set1_epi8(15);
  for (int64_t k = 0; k < s.count; ++k) {
    __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(s.codes + k * 8));
    if (first != 0) bytes = _mm_srli_epi16(bytes, 4);
    const __m256 q = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_and_si128(bytes, nibble)));
    const __m256 code = _mm256_sub_ps(q, base);
    const __m256 value = odd ? add_to_odd(_mm256_mul_ps(code, scale), add) : _mm256_fmadd_ps(code, scale, add);
    _mm256_storeu_ps(s.value + k * kPanelWidth + first, narrowed<narrow>(value));
  }
}

template <Narrow narrow>
void run_any(const GroupRule& rule, const CodeStretch& s, int first) {
  return rule.sum == SumRule::to_odd ? run<narrow, true>(rule, s, first) : run<narrow, false>(rule, s, first);
}

}  // namespace

void dequantize_stretch(const GroupRule& rule, const CodeStretch& stretch) {
  for (const int first : {0, 8}) {
    switch (rule.narrow) {
      case Narrow::none: run_any<Narrow::none>(rule, stretch, first); break;
      case Narrow::fp16: run_any<Narrow::fp16>(rule, stretch, first); break;
      case Narrow::bf16: run_any<Narrow::bf16>(rule, stretch, first); break;
    }
  }
  if (stretch.exponent.cells == nullptr) return;
  panel_codes(stretch.lowest_exponent, stretch.value, stretch.exponent, stretch.count);
}

}  // namespace qf::avx2
