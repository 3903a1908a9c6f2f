#include <immintrin.h>

#include "kernels/emulate/scalar_chain_loops.h"

namespace qf::avx2 {
namespace {

struct Lanes {
  struct Vector {
    __m256 low, high;
  };
  static Vector all(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
  static Vector zero() { return all(0.0f); }
  static Vector load(const float* from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
  static void store(float* to, Vector v) {
    _mm256_storeu_ps(to, v.low);
    _mm256_storeu_ps(to + 8, v.high);
  }
  static Vector mul(Vector a, Vector b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
  static Vector fma(Vector a, Vector b, Vector c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
  }
};

__m256 to_half(__m256 x) { return _mm256_cvtph_ps(_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)); }

/// fp16 FMA with one rounding: exact product, sum rounded to odd by its two-sum residual (see round_to_odd.h).
__m256 half_fma(__m256 a, __m256 w, __m256 c) {
  const __m256 p = _mm256_mul_ps(a, w);
  const __m256 sum = _mm256_add_ps(p, c);
  const __m256 from_c = _mm256_sub_ps(sum, p);
  const __m256 residual = _mm256_add_ps(_mm256_sub_ps(p, _mm256_sub_ps(sum, from_c)), _mm256_sub_ps(c, from_c));
  const __m256i bits = _mm256_castps_si256(sum);
  // NaN residuals (Inf operands) compare as equal to zero here: nothing to correct
  const __m256i inexact = _mm256_castps_si256(_mm256_cmp_ps(residual, _mm256_setzero_ps(), _CMP_NEQ_OQ));
  const __m256i even = _mm256_cmpeq_epi32(_mm256_slli_epi32(bits, 31), _mm256_setzero_si256());
  const __m256i away = _mm256_srai_epi32(_mm256_xor_si256(_mm256_castps_si256(residual), bits), 31);  // -1: toward zero
  const __m256i step = _mm256_or_si256(away, _mm256_set1_epi32(1));
  const __m256i odd = _mm256_add_epi32(bits, _mm256_and_si256(step, _mm256_and_si256(inexact, even)));
  return to_half(_mm256_castsi256_ps(odd));
}

/// 16 columns (two vectors) of one row and one panel.
void half2_row(const ScalarChainArgs& args, int row, int panel) {
  const float* a = args.rows + row * args.ld;
  float* out = args.accumulator + row * args.accumulator_ld + panel * kPanelWidth;
  __m256 acc[2] = {_mm256_loadu_ps(out), _mm256_loadu_ps(out + 8)};
  for (int64_t i = 0; i < args.walk.count; ++i) {
    const int64_t begin = args.walk.start + i * args.walk.stride;
    for (int64_t k = begin; k < begin + args.walk.length; k += 8) {
      const float* scale = args.panels[panel].scale + (args.k_origin + k) / args.group * kPanelWidth;
      const float* w = args.panels[panel].value + k * kPanelWidth;
      for (int half = 0; half < 2; ++half) {
        __m256 chain[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
        for (int j = 0; j < 8; ++j) {
          chain[j & 1] =
              half_fma(_mm256_set1_ps(a[k + j]), _mm256_loadu_ps(w + j * kPanelWidth + 8 * half), chain[j & 1]);
        }
        acc[half] = _mm256_fmadd_ps(_mm256_add_ps(chain[0], chain[1]), _mm256_loadu_ps(scale + 8 * half), acc[half]);
      }
    }
  }
  _mm256_storeu_ps(out, acc[0]);
  _mm256_storeu_ps(out + 8, acc[1]);
}

}  // namespace

void half2_chain(const ScalarChainArgs& args) {
  for (int panel = 0; panel < args.panel_count; ++panel) {
    for (int row = 0; row < args.row_count; ++row) half2_row(args, row, panel);
  }
}

void float_chain(const ScalarChainArgs& args) { float_chains<Lanes>(args); }
void int32_chain(const ScalarChainArgs& args) { int32_chains<Lanes>(args); }

}  // namespace qf::avx2
