#include <immintrin.h>

#include "kernels/emulate/dequantize.h"

namespace qf::avx512 {
namespace {

template <Narrow narrow>
__m512 narrowed(__m512 x) {
  if constexpr (narrow == Narrow::fp16) {
    return _mm512_cvtph_ps(_mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  if constexpr (narrow == Narrow::bf16) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i sum = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
    const __m512i rounded = _mm512_and_si512(sum, _mm512_set1_epi32(static_cast<int>(0xFFFF0000u)));
    return _mm512_mask_mov_ps(_mm512_castsi512_ps(rounded), _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x);
  }
  return x;
}

__m512i exponents_of(__m512 value, __m512i lowest) {
  const __m512i magnitude = _mm512_slli_epi32(_mm512_castps_si512(value), 1);
  const __m512i field = _mm512_srli_epi32(magnitude, 24);
  __m512i e = _mm512_max_epi32(_mm512_sub_epi32(field, _mm512_set1_epi32(127)), lowest);
  e = _mm512_mask_mov_epi32(e, _mm512_cmpeq_epi32_mask(field, _mm512_set1_epi32(255)),
                            _mm512_set1_epi32(kSpecialExponent));
  return _mm512_mask_mov_epi32(e, _mm512_testn_epi32_mask(magnitude, magnitude), _mm512_set1_epi32(kZeroExponent));
}

template <Narrow narrow>
void run(const GroupRule& rule, const CodeStretch& s) {
  const __m512 base = _mm512_load_ps(rule.base), scale = _mm512_load_ps(rule.scale), add = _mm512_load_ps(rule.add);
  const __m512i lowest = _mm512_set1_epi32(s.lowest_exponent);
  const __m128i nibble = _mm_set1_epi8(15);
  const auto weights = [&](int64_t k) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(s.codes + k * 8));
    const __m128i both = _mm_unpacklo_epi64(bytes, _mm_srli_epi16(bytes, 4));
    const __m512 q = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_and_si128(both, nibble)));
    // exact: the fused form only saves an instruction
    const __m512 value = narrowed<narrow>(_mm512_fmadd_ps(_mm512_sub_ps(q, base), scale, add));
    _mm512_storeu_ps(s.value + k * kPanelWidth, value);
    return value;
  };
  if (s.exponent == nullptr) {
    for (int64_t k = 0; k < s.count; ++k) weights(k);
    return;
  }
  for (int64_t k = 0; k < s.count; k += 2) {
    const __m512i first = exponents_of(weights(k), lowest), second = exponents_of(weights(k + 1), lowest);
    // low halves: even k, high halves: odd k
    const __m512i pair = _mm512_mask_blend_epi16(0xAAAAAAAAu, first, _mm512_slli_epi32(second, 16));
    _mm512_storeu_si512(s.exponent + panel_exponent_index(k, 0), pair);
  }
}

}  // namespace

void dequantize_stretch(const GroupRule& rule, const CodeStretch& stretch) {
  switch (rule.narrow) {
    case Narrow::none: return run<Narrow::none>(rule, stretch);
    case Narrow::fp16: return run<Narrow::fp16>(rule, stretch);
    case Narrow::bf16: return run<Narrow::bf16>(rule, stretch);
  }
}

}  // namespace qf::avx512
