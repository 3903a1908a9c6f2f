#include <immintrin.h>

#include "numerics/chain_isa.h"

#pragma GCC diagnostic ignored "-Wignored-attributes"

namespace qf {
namespace {

#include "numerics/chain_tile.h"

struct Avx512 {
  using Float = __m512;
  using Int = __m512i;
  using Mask = __mmask16;
  static constexpr int lanes = 16;

  static Float load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, Float x) { _mm512_storeu_ps(p, x); }
  static Int load_int(const int16_t* p) { return _mm512_loadu_si512(p); }
  static Float set(float x) { return _mm512_set1_ps(x); }
  static Int set(int32_t x) { return _mm512_set1_epi32(x); }
  static Int add(Int a, Int b) { return _mm512_add_epi32(a, b); }
  static Int sub(Int a, Int b) { return _mm512_sub_epi32(a, b); }
  static Int max_unsigned(Int a, Int b) { return _mm512_max_epu32(a, b); }
  static Float add(Float a, Float b) { return _mm512_add_ps(a, b); }
  static Float mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static Int truncate(Float x) { return _mm512_cvttps_epi32(x); }

  // exponents, two int16 per lane
  static Int set16(int x) { return _mm512_set1_epi16(static_cast<int16_t>(x)); }
  static Int set_pair(const int16_t* p) {
    int32_t pair;
    __builtin_memcpy(&pair, p, sizeof pair);
    return _mm512_set1_epi32(pair);
  }
  static Int add16(Int a, Int b) { return _mm512_add_epi16(a, b); }
  static Int max16(Int a, Int b) { return _mm512_max_epi16(a, b); }
  static Int min16(Int a, Int b) { return _mm512_min_epi16(a, b); }
  static Int swap16(Int x) { return _mm512_rol_epi32(x, 16); }
  static Int shift_to_field(Int x) { return _mm512_slli_epi32(x, 23); }
  static Int exponent_field(Float x) { return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7F800000)); }
  static Float as_float(Int x) { return _mm512_castsi512_ps(x); }

  static Mask outside_field(Int x, int lowest, int highest) {
    return _mm512_cmpgt_epu32_mask(_mm512_sub_epi32(x, _mm512_set1_epi32(lowest << 23)),
                                   _mm512_set1_epi32((highest - lowest) << 23));
  }
  static Mask all_zero(Int products, Float accumulator) {
    const Int largest = _mm512_srai_epi32(max16(products, swap16(products)), 16);
    return _mm512_cmplt_epi32_mask(largest, _mm512_set1_epi32(kZeroExponent / 2)) &
           _mm512_cmp_ps_mask(accumulator, _mm512_setzero_ps(), _CMP_EQ_OQ);
  }
  static Mask and_not(Mask a, Mask b) { return static_cast<Mask>(a & ~b); }
  static Mask mask_or(Mask a, Mask b) { return static_cast<Mask>(a | b); }
  static bool any(Mask mask) { return mask != 0; }
  /// low + high overflowed: both have the sign that sum lacks.
  static Mask overflows(Int low, Int high, Int sum) {
    return _mm512_movepi32_mask(_mm512_and_si512(_mm512_xor_si512(low, sum), _mm512_xor_si512(high, sum)));
  }

  static Float to_float_toward_zero(Int x) {
    return _mm512_cvt_roundepi32_ps(x, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
  }
  /// Toward zero, with the last bit set where bits were lost: a later rounding to fewer bits then rounds only once.
  static Float to_float_sticky(Int x) {
    const Float cut = to_float_toward_zero(x);
    const Mask lost = _mm512_cmpneq_epi32_mask(_mm512_cvttps_epi32(cut), x);
    const Int bits = _mm512_castps_si512(cut);
    return _mm512_castsi512_ps(_mm512_mask_or_epi32(bits, lost, bits, _mm512_set1_epi32(1)));
  }
  static Float round_half(Float x) {
    return _mm512_cvtph_ps(_mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }

  // Four or more independent accumulators hide the latency of a step; more rows also share the loads of the weights.
  static int tile_rows(int left) { return left >= 6 ? 6 : left >= 4 ? 4 : left; }
  template <int L, Finish kFinish>
  static int dispatch(int rows, int vectors, const TileArgs& tile) {
    switch (rows) {
      case 6: run_tile<Avx512, L, kFinish, 6, 1>(tile); return 1;
      case 4: run_tile<Avx512, L, kFinish, 4, 1>(tile); return 1;
      case 3:
        return vectors >= 2 ? (run_tile<Avx512, L, kFinish, 3, 2>(tile), 2)
                            : (run_tile<Avx512, L, kFinish, 3, 1>(tile), 1);
      case 2:
        return vectors >= 2 ? (run_tile<Avx512, L, kFinish, 2, 2>(tile), 2)
                            : (run_tile<Avx512, L, kFinish, 2, 1>(tile), 1);
      default:
        if (vectors >= 4) return run_tile<Avx512, L, kFinish, 1, 4>(tile), 4;
        return vectors >= 2 ? (run_tile<Avx512, L, kFinish, 1, 2>(tile), 2)
                            : (run_tile<Avx512, L, kFinish, 1, 1>(tile), 1);
    }
  }
};

}  // namespace

bool chain_avx512(const ChainArgs& args) { return run_vectorised<Avx512>(args); }

}  // namespace qf
