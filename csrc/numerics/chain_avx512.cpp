#include <immintrin.h>

#include "numerics/chain_isa.h"

#pragma GCC diagnostic ignored "-Wignored-attributes"

namespace qf {
namespace {

#include "numerics/chain_tile.h"

struct Avx512 {
  using Float = __m512;
  using Int = __m512i;
  static constexpr int lanes = 16;
  static constexpr int kSharedRows = 4;

  static Float load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, Float x) { _mm512_storeu_ps(p, x); }
  static void store(int32_t* p, Int x) { _mm512_storeu_si512(p, x); }
  static Int load_int(const uint8_t* p) { return _mm512_loadu_si512(p); }
  static Int splat(const uint32_t* p) { return _mm512_set1_epi32(static_cast<int>(*p)); }
  static Float set(float x) { return _mm512_set1_ps(x); }
  static Int set(int32_t x) { return _mm512_set1_epi32(x); }
  static Int add(Int a, Int b) { return _mm512_add_epi32(a, b); }
  static Int sub(Int a, Int b) { return _mm512_sub_epi32(a, b); }
  static Int max_unsigned(Int a, Int b) { return _mm512_max_epu32(a, b); }
  static Int min_unsigned(Int a, Int b) { return _mm512_min_epu32(a, b); }
  static Float add(Float a, Float b) { return _mm512_add_ps(a, b); }
  static Float mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static Int truncate(Float x) { return _mm512_cvttps_epi32(x); }

  static Int shift_left(Int x, int count) {
    return count >= 0 ? _mm512_slli_epi32(x, static_cast<unsigned>(count))
                      : _mm512_srli_epi32(x, static_cast<unsigned>(-count));
  }
  static Int shift_right(Int x, int count) { return _mm512_srl_epi32(x, _mm_cvtsi32_si128(count)); }
  static Int bits(Float x) { return _mm512_castps_si512(x); }
  static Float as_float(Int x) { return _mm512_castsi512_ps(x); }
  static Int exponent_bits(Int x) { return _mm512_and_si512(x, _mm512_set1_epi32(0x7F800000)); }

  static Int low_bits(Int x, int count) { return _mm512_and_si512(x, _mm512_set1_epi32((1 << count) - 1)); }

  struct Bytes : ByteCodes {
    static Int max(Int a, Int b) { return _mm512_max_epu8(a, b); }
    static bool any_outside(Int x, int lowest, int highest) {
      const Int above = _mm512_sub_epi8(x, _mm512_set1_epi8(static_cast<char>(lowest)));  // wraps below
      return _mm512_cmpgt_epu8_mask(above, _mm512_set1_epi8(static_cast<char>(highest - lowest))) != 0;
    }
    static Int exponents(Int sums, int floor) {
      return max(_mm512_adds_epu8(sums, _mm512_set1_epi8(kToField)), _mm512_set1_epi8(static_cast<char>(floor)));
    }
  };
  struct Words : WordCodes {
    static Int max(Int a, Int b) { return _mm512_max_epi16(a, b); }
    static bool any_outside(Int x, int lowest, int highest) {
      const Int above = _mm512_sub_epi16(x, _mm512_set1_epi16(static_cast<int16_t>(lowest)));  // wraps below
      return _mm512_cmpgt_epu16_mask(above, _mm512_set1_epi16(static_cast<int16_t>(highest - lowest))) != 0;
    }
    static Int exponents(Int sums, int floor) {
      const Int fields = _mm512_add_epi16(sums, _mm512_set1_epi16(kToField));
      return max(_mm512_min_epi16(fields, _mm512_set1_epi16(255)), _mm512_set1_epi16(static_cast<int16_t>(floor)));
    }
  };

  static Int raise_nonzero(Int x, int32_t least) {
    return _mm512_maskz_max_epu32(_mm512_test_epi32_mask(x, x), x, _mm512_set1_epi32(least));
  }
  static bool any_above(Int x, int32_t limit) { return _mm512_cmpgt_epu32_mask(x, _mm512_set1_epi32(limit)) != 0; }
  static bool any_zero(Int x) { return _mm512_testn_epi32_mask(x, x) != 0; }
  static bool any_negative(Int x) { return _mm512_movepi32_mask(x) != 0; }
  /// before, with the sign set where low + high overflowed: both have the sign that sum lacks.
  static Int or_sign_differs(Int before, Int low, Int high, Int sum) {
    return _mm512_or_si512(before, _mm512_ternarylogic_epi32(low, high, sum, 0x42));
  }

  static Float to_float_toward_zero(Int x) {
    return _mm512_cvt_roundepi32_ps(x, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
  }
  /// Toward zero, with the last bit set where bits were lost: a later rounding to fewer bits then rounds only once.
  static Float to_float_sticky(Int x) {
    const Float cut = to_float_toward_zero(x);
    const __mmask16 lost = _mm512_cmpneq_epi32_mask(_mm512_cvttps_epi32(cut), x);
    const Int bits = _mm512_castps_si512(cut);
    return _mm512_castsi512_ps(_mm512_mask_or_epi32(bits, lost, bits, _mm512_set1_epi32(1)));
  }
  static Float round_half(Float x) {
    return _mm512_cvtph_ps(_mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
};

}  // namespace

bool chain_avx512(const ChainArgs& args) { return run_vectorised<Avx512>(args); }

}  // namespace qf
