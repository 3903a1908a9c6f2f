#include <immintrin.h>

#include "numerics/chain_isa.h"

#pragma GCC diagnostic ignored "-Wignored-attributes"

namespace qf {
namespace {

#include "numerics/chain_tile.h"

struct Avx2 {
  using Float = __m256;
  using Int = __m256i;
  using Mask = __m256i;  // all ones or all zeros per lane
  static constexpr int lanes = 8;

  static Float load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, Float x) { _mm256_storeu_ps(p, x); }
  static Int load_int(const int16_t* p) { return _mm256_loadu_si256(reinterpret_cast<const Int*>(p)); }
  static Float set(float x) { return _mm256_set1_ps(x); }
  static Int set(int32_t x) { return _mm256_set1_epi32(x); }
  static Int add(Int a, Int b) { return _mm256_add_epi32(a, b); }
  static Int sub(Int a, Int b) { return _mm256_sub_epi32(a, b); }
  static Int max_unsigned(Int a, Int b) { return _mm256_max_epu32(a, b); }
  static Float add(Float a, Float b) { return _mm256_add_ps(a, b); }
  static Float mul(Float a, Float b) { return _mm256_mul_ps(a, b); }
  static Int truncate(Float x) { return _mm256_cvttps_epi32(x); }

  // exponents, two int16 per lane
  static Int set16(int x) { return _mm256_set1_epi16(static_cast<int16_t>(x)); }
  static Int set_pair(const int16_t* p) {
    int32_t pair;
    __builtin_memcpy(&pair, p, sizeof pair);
    return _mm256_set1_epi32(pair);
  }
  static Int add16(Int a, Int b) { return _mm256_add_epi16(a, b); }
  static Int max16(Int a, Int b) { return _mm256_max_epi16(a, b); }
  static Int min16(Int a, Int b) { return _mm256_min_epi16(a, b); }
  static Int swap16(Int x) { return _mm256_or_si256(_mm256_slli_epi32(x, 16), _mm256_srli_epi32(x, 16)); }
  static Int shift_to_field(Int x) { return _mm256_slli_epi32(x, 23); }
  static Int exponent_field(Float x) { return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7F800000)); }
  static Float as_float(Int x) { return _mm256_castsi256_ps(x); }

  static Mask outside_field(Int x, int lowest, int highest) {  // fields are never negative: signed comparisons serve
    return _mm256_or_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(lowest << 23), x),
                           _mm256_cmpgt_epi32(x, _mm256_set1_epi32(highest << 23)));
  }
  static Mask all_zero(Int products, Float accumulator) {
    const Int largest = _mm256_srai_epi32(max16(products, swap16(products)), 16);
    return _mm256_and_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(kZeroExponent / 2), largest),
                            _mm256_castps_si256(_mm256_cmp_ps(accumulator, _mm256_setzero_ps(), _CMP_EQ_OQ)));
  }
  static Mask and_not(Mask a, Mask b) { return _mm256_andnot_si256(b, a); }
  static Mask mask_or(Mask a, Mask b) { return _mm256_or_si256(a, b); }
  static bool any(Mask mask) { return !_mm256_testz_si256(mask, mask); }
  static Mask overflows(Int low, Int high, Int sum) {
    return _mm256_srai_epi32(_mm256_and_si256(_mm256_xor_si256(low, sum), _mm256_xor_si256(high, sum)), 31);
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

  // Sixteen registers: two by two accumulators measured best.
  static int tile_rows(int left) { return left >= 2 ? 2 : left; }
  template <int L, Finish kFinish>
  static int dispatch(int rows, int vectors, const TileArgs& tile) {
    if (rows == 2) {
      return vectors >= 2 ? (run_tile<Avx2, L, kFinish, 2, 2>(tile), 2) : (run_tile<Avx2, L, kFinish, 2, 1>(tile), 1);
    }
    return vectors >= 2 ? (run_tile<Avx2, L, kFinish, 1, 2>(tile), 2) : (run_tile<Avx2, L, kFinish, 1, 1>(tile), 1);
  }
};

}  // namespace

bool chain_avx2(const ChainArgs& args) { return run_vectorised<Avx2>(args); }

}  // namespace qf
