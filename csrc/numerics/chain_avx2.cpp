#include <immintrin.h>

#include "numerics/chain_isa.h"

#pragma GCC diagnostic ignored "-Wignored-attributes"

namespace qf {
namespace {

#include "numerics/chain_tile.h"

struct Avx2 {
  using Float = __m256;
  using Int = __m256i;
  static constexpr int lanes = 8;
  static constexpr int kSharedRows = 4;

  static Float load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, Float x) { _mm256_storeu_ps(p, x); }
  static void store(int32_t* p, Int x) { _mm256_storeu_si256(reinterpret_cast<Int*>(p), x); }
  static Int load_int(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const Int*>(p)); }
  static Int splat(const uint32_t* p) { return _mm256_set1_epi32(static_cast<int>(*p)); }
  static Float set(float x) { return _mm256_set1_ps(x); }
  static Int set(int32_t x) { return _mm256_set1_epi32(x); }
  static Int add(Int a, Int b) { return _mm256_add_epi32(a, b); }
  static Int sub(Int a, Int b) { return _mm256_sub_epi32(a, b); }
  static Int max_unsigned(Int a, Int b) { return _mm256_max_epu32(a, b); }
  static Int min_unsigned(Int a, Int b) { return _mm256_min_epu32(a, b); }
  static Float add(Float a, Float b) { return _mm256_add_ps(a, b); }
  static Float mul(Float a, Float b) { return _mm256_mul_ps(a, b); }
  static Int truncate(Float x) { return _mm256_cvttps_epi32(x); }

  static Int shift_left(Int x, int count) {
    return count >= 0 ? _mm256_slli_epi32(x, count) : _mm256_srli_epi32(x, -count);
  }
  static Int shift_right(Int x, int count) { return _mm256_srl_epi32(x, _mm_cvtsi32_si128(count)); }
  static Int bits(Float x) { return _mm256_castps_si256(x); }
  static Float as_float(Int x) { return _mm256_castsi256_ps(x); }
  static Int exponent_bits(Int x) { return _mm256_and_si256(x, _mm256_set1_epi32(0x7F800000)); }

  static Int low_bits(Int x, int count) { return _mm256_and_si256(x, set((1 << count) - 1)); }

  static bool differ(Int a, Int b) { return _mm256_movemask_epi8(_mm256_cmpeq_epi8(a, b)) != -1; }
  struct Bytes : ByteCodes {
    static Int max(Int a, Int b) { return _mm256_max_epu8(a, b); }
    static bool any_outside(Int x, int lowest, int highest) {
      const Int above = _mm256_sub_epi8(x, _mm256_set1_epi8(static_cast<char>(lowest)));  // wraps below
      const Int bound = _mm256_set1_epi8(static_cast<char>(highest - lowest));
      return differ(max(above, bound), bound);
    }
    static Int exponents(Int sums, int floor) {
      return max(_mm256_adds_epu8(sums, _mm256_set1_epi8(kToField)), _mm256_set1_epi8(static_cast<char>(floor)));
    }
  };
  struct Words : WordCodes {
    static Int max(Int a, Int b) { return _mm256_max_epi16(a, b); }
    static bool any_outside(Int x, int lowest, int highest) {
      const Int above = _mm256_sub_epi16(x, _mm256_set1_epi16(static_cast<int16_t>(lowest)));  // wraps below
      const Int bound = _mm256_set1_epi16(static_cast<int16_t>(highest - lowest));
      return _mm256_movemask_epi8(_mm256_cmpeq_epi16(_mm256_max_epu16(above, bound), bound)) != -1;
    }
    static Int exponents(Int sums, int floor) {
      const Int fields = _mm256_add_epi16(sums, _mm256_set1_epi16(kToField));
      return max(_mm256_min_epi16(fields, _mm256_set1_epi16(255)), _mm256_set1_epi16(static_cast<int16_t>(floor)));
    }
  };

  static Int raise_nonzero(Int x, int32_t least) {
    return _mm256_andnot_si256(_mm256_cmpeq_epi32(x, set(0)), max_unsigned(x, set(least)));
  }
  static bool any_above(Int x, int32_t limit) {
    return differ(max_unsigned(x, _mm256_set1_epi32(limit)), _mm256_set1_epi32(limit));
  }
  static bool any_zero(Int x) { return _mm256_movemask_epi8(_mm256_cmpeq_epi32(x, set(0))) != 0; }
  static bool any_negative(Int x) { return _mm256_movemask_ps(_mm256_castsi256_ps(x)) != 0; }
  /// before, with the sign set where low + high overflowed: both have the sign that sum lacks.
  static Int or_sign_differs(Int before, Int low, Int high, Int sum) {
    return _mm256_or_si256(before, _mm256_and_si256(_mm256_xor_si256(low, sum), _mm256_xor_si256(high, sum)));
  }

  /// No embedded rounding here: round |x| to nearest, and step back where that went up.
  static Float to_float_toward_zero(Int x) {
    const Int magnitude = _mm256_abs_epi32(x);
    const Float nearest = _mm256_cvtepi32_ps(magnitude);
    // a nearest of 2^31 converts back to INT_MIN, and the wrapped difference is positive as it should be
    const Int excess = _mm256_sub_epi32(_mm256_cvttps_epi32(nearest), magnitude);
    const Int went_up = _mm256_cmpgt_epi32(excess, _mm256_setzero_si256());
    const Int bits = _mm256_add_epi32(_mm256_castps_si256(nearest), went_up);  // -1 where it went up
    return _mm256_castsi256_ps(_mm256_or_si256(bits, _mm256_and_si256(x, _mm256_set1_epi32(INT32_MIN))));
  }
  static Float to_float_sticky(Int x) {
    const Float cut = to_float_toward_zero(x);
    const Int kept = _mm256_cmpeq_epi32(_mm256_cvttps_epi32(cut), x);
    const Int bits = _mm256_castps_si256(cut);
    return _mm256_castsi256_ps(_mm256_or_si256(bits, _mm256_andnot_si256(kept, _mm256_set1_epi32(1))));
  }
  static Float round_half(Float x) { return _mm256_cvtph_ps(_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT)); }
};

}  // namespace

bool chain_avx2(const ChainArgs& args) { return run_vectorised<Avx2>(args); }

}  // namespace qf
