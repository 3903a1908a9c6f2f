#include <immintrin.h>

#include "kernels/emulate/scalar_chain_loops.h"

namespace qf::avx512 {
namespace {

struct Lanes {
  using Vector = __m512;
  static Vector all(float value) { return _mm512_set1_ps(value); }
  static Vector zero() { return _mm512_setzero_ps(); }
  static Vector load(const float* from) { return _mm512_loadu_ps(from); }
  static void store(float* to, Vector v) { _mm512_storeu_ps(to, v); }
  static Vector mul(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
};

/// fp32 rounded to odd -> fp16 -> fp32.
__m512 to_half(__m512 x) { return _mm512_cvtph_ps(_mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)); }

/// fp16 FMA with one rounding. The exact a * w + c lies between its roundings down and up in fp32; these are equal or
/// neighbours, and the smaller magnitude with its last bit set where they differ is the sum rounded to odd.
__m512 half_fma(__m512 a, __m512 w, __m512 c) {
  const __m512i down = _mm512_castps_si512(_mm512_fmadd_round_ps(a, w, c, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC));
  const __m512i up = _mm512_castps_si512(_mm512_fmadd_round_ps(a, w, c, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC));
  const __m512i inexact = _mm512_ternarylogic_epi32(down, up, _mm512_set1_epi32(1), 0x28);  // (down ^ up) & 1
  return to_half(_mm512_castsi512_ps(_mm512_or_si512(_mm512_min_epu32(down, up), inexact)));
}

/// 8 k of R rows by P panels: the two fp16 chains, their fp32 sum scaled into the accumulators.
template <int R, int P>
void eight(const ScalarChainArgs& args, int row, int panel, int64_t k, __m512 (&acc)[R][P]) {
  __m512 lane[2][R][P];
  for (int j = 0; j < 8; ++j) {
    for (int p = 0; p < P; ++p) {
      const __m512 w = _mm512_loadu_ps(args.panels[panel + p].value + (k + j) * kPanelWidth);
      for (int r = 0; r < R; ++r) {
        const __m512 a = _mm512_set1_ps(args.rows[(row + r) * args.ld + k + j]);
        __m512& chain = lane[j & 1][r][p];
        chain = j < 2 ? to_half(_mm512_mul_ps(a, w)) : half_fma(a, w, chain);  // a first product is exact in fp32
      }
    }
  }
  for (int p = 0; p < P; ++p) {
    const __m512 scale = _mm512_loadu_ps(args.panels[panel + p].scale + (args.k_origin + k) / args.group * kPanelWidth);
    for (int r = 0; r < R; ++r)
      acc[r][p] = _mm512_fmadd_ps(_mm512_add_ps(lane[0][r][p], lane[1][r][p]), scale, acc[r][p]);
  }
}

template <int R, int P>
void block(const ScalarChainArgs& args, int row, int panel) {
  __m512 acc[R][P];
  const auto at = [&](int r, int p) {
    return args.accumulator + (row + r) * args.accumulator_ld + (panel + p) * kPanelWidth;
  };
  for (int r = 0; r < R; ++r) {
    for (int p = 0; p < P; ++p) acc[r][p] = _mm512_loadu_ps(at(r, p));
  }
  for (int64_t i = 0; i < args.walk.count; ++i) {
    const int64_t begin = args.walk.start + i * args.walk.stride;
    for (int64_t k = begin; k < begin + args.walk.length; k += 8) eight<R, P>(args, row, panel, k, acc);
  }
  for (int r = 0; r < R; ++r) {
    for (int p = 0; p < P; ++p) _mm512_storeu_ps(at(r, p), acc[r][p]);
  }
}

}  // namespace

void half2_chain(const ScalarChainArgs& args) {
  int row = 0;
  for (; row + 4 <= args.row_count; row += 4) {
    for (int panel = 0; panel < args.panel_count; ++panel) block<4, 1>(args, row, panel);
  }
  for (; row < args.row_count; ++row) {
    int panel = 0;
    for (; panel + 4 <= args.panel_count; panel += 4) block<1, 4>(args, row, panel);
    for (; panel < args.panel_count; ++panel) block<1, 1>(args, row, panel);
  }
}

void float_chain(const ScalarChainArgs& args) { float_chains<Lanes>(args); }
void int32_chain(const ScalarChainArgs& args) { int32_chains<Lanes>(args); }

}  // namespace qf::avx512
