// The loops behind vector_ops.h. Included once per instruction set by vector_ops*.cpp, which set the compiler's flags;
// in an unnamed namespace, so that no copy for a larger instruction set can be linked in place of the baseline's.
#if defined(__F16C__)
#include <immintrin.h>
#endif

#include <cmath>
#include <limits>

#include "base/half.h"
#include "numerics/cuda_math.h"
#include "numerics/dot_chain.h"
#include "operators/elements.h"
#include "operators/vector_ops.h"
#if defined(__AVX512F__)
#include "operators/exp_avx512.h"
#endif

namespace qf {
namespace {

#if defined(__F16C__)
/// float_to_half of eight numbers.
inline __m128i narrow_half(__m256 x) {
  const __m128i half = _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m128i magnitude = _mm_and_si128(half, _mm_set1_epi16(0x7FFF));
  const __m128i nan = _mm_cmpgt_epi16(magnitude, _mm_set1_epi16(0x7C00));
  return _mm_blendv_epi8(half, _mm_set1_epi16(0x7FFF), nan);
}
#endif

void widen(DType dtype, const uint16_t* in, int64_t n, float* out) {
  int64_t i = 0;
  if (dtype == DType::bf16) {
    for (; i < n; ++i) out[i] = bf16_to_float(in[i]);
    return;
  }
#if defined(__F16C__)
  for (; i + 8 <= n; i += 8) {
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i))));
  }
#endif
  for (; i < n; ++i) out[i] = half_to_float(in[i]);
}

void narrow(DType dtype, const float* in, int64_t n, uint16_t* out) {
  int64_t i = 0;
  if (dtype == DType::bf16) {
    for (; i < n; ++i) out[i] = float_to_bf16(in[i]);
    return;
  }
#if defined(__F16C__)
  for (; i + 8 <= n; i += 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), narrow_half(_mm256_loadu_ps(in + i)));
  }
#endif
  for (; i < n; ++i) out[i] = float_to_half(in[i]);
}

void round(DType dtype, float* values, int64_t n) {
  int64_t i = 0;
  if (dtype == DType::bf16) {
    for (; i < n; ++i) values[i] = bf16_to_float(float_to_bf16(values[i]));
    return;
  }
#if defined(__F16C__)
  for (; i + 8 <= n; i += 8) _mm256_storeu_ps(values + i, _mm256_cvtph_ps(narrow_half(_mm256_loadu_ps(values + i))));
#endif
  for (; i < n; ++i) values[i] = half_to_float(float_to_half(values[i]));
}

float max(const float* in, int64_t n) {
  constexpr int kLanes = 32;  // independent ones, so that the compiler may keep them in vectors
  float lanes[kLanes];
  for (float& lane : lanes) lane = -std::numeric_limits<float>::infinity();
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lanes[j] = in[i + j] > lanes[j] ? in[i + j] : lanes[j];
  }
  for (; i < n; ++i) lanes[0] = in[i] > lanes[0] ? in[i] : lanes[0];
  for (int j = 1; j < kLanes; ++j) lanes[0] = lanes[j] > lanes[0] ? lanes[j] : lanes[0];
  return lanes[0];
}

void row_cells(const float* values, int64_t n, int lowest, uint32_t* cells) {
  for (int64_t i = 0; i < n; ++i) cells[i] = row_cell(values[i], lowest);
}

void exp_parts(const SfuView& sfu, const float* in, float shift, int64_t n, float* scale, float* mantissa) {
  int64_t i = 0;
#if defined(__AVX512F__)
  for (; i + 16 <= n; i += 16) {
    const ExpLanes parts = cuda_exp_lanes(sfu.ex2_curve, _mm512_sub_ps(_mm512_loadu_ps(in + i), _mm512_set1_ps(shift)));
    _mm512_storeu_ps(scale + i, parts.scale);
    _mm512_storeu_ps(mantissa + i, parts.mantissa);
  }
#endif
  for (; i < n; ++i) {
    const ExpParts parts = cuda_exp_parts(sfu, in[i] - shift);
    scale[i] = parts.scale;
    mantissa[i] = parts.mantissa;
  }
}

/// ex2 takes a subnormal argument as it takes zero, so only the input needs flushing.
void exp2_scaled(const SfuView& sfu, const float* in, float c, float offset, int64_t n, float* out) {
  int64_t i = 0;
#if defined(__AVX512F__)
  const __m512 factor = _mm512_set1_ps(c), minus_offset = _mm512_set1_ps(-offset);
  for (; i + 16 <= n; i += 16) {
    const __m512 x = _mm512_loadu_ps(in + i);
    const __mmask16 normal = _mm512_test_epi32_mask(_mm512_castps_si512(x), _mm512_set1_epi32(0x7F800000));
    const __m512 flushed_x = _mm512_maskz_mov_ps(normal, x);  // the sign of a zero is lost in the sum
    _mm512_storeu_ps(out + i, ex2_lanes(sfu.ex2_curve, _mm512_fmadd_ps(flushed_x, factor, minus_offset)));
  }
#endif
  for (; i < n; ++i) out[i] = sfu.ex2(std::fma(flush_subnormal(in[i]), c, -offset));
}

void scale_flushed(float* values, int64_t n, float factor) {
  for (int64_t i = 0; i < n; ++i) values[i] = flush_subnormal(flush_subnormal(values[i]) * factor);
}

void rotate(const float* x, const float* y, const float* cosine, const float* sine, int64_t n, float* out_x,
            float* out_y) {
  for (int64_t i = 0; i < n; ++i) {
    out_x[i] = rotate_first(x[i], y[i], cosine[i], sine[i]);
    out_y[i] = rotate_second(x[i], y[i], cosine[i], sine[i]);
  }
}

void divide_by_one_plus(float* gate, const float* scale, const float* mantissa, int64_t n) {
  for (int64_t i = 0; i < n; ++i) gate[i] = silu_from_exp(gate[i], scale[i], mantissa[i]);
}

void thread_exp_sums(const float* scale, const float* mantissa, int64_t n, int64_t vector, int threads, float* sums) {
  for (int thread = 0; thread < threads; ++thread) {
    float sum = sums[thread];
    for (int64_t first = thread * vector; first < n; first += threads * vector) {
      const int64_t end = first + vector < n ? first + vector : n;
      for (int64_t i = first; i < end; ++i) sum = std::fma(scale[i], mantissa[i], sum);
    }
    sums[thread] = sum;
  }
}

void thread_square_sums(const float* x, int64_t length, int64_t vectors, int threads, float* sums) {
  for (int thread = 0; thread < threads; ++thread) {
    float sum = 0.0f;
    for (int64_t vector = thread; vector < vectors; vector += threads) {
      for (int64_t i = vector * length; i < (vector + 1) * length; ++i) sum = std::fma(x[i], x[i], sum);
    }
    sums[thread] = sum;
  }
}

void thread_pair_sums(const float* x, int64_t vectors, int threads, float* sums) {
  for (int thread = 0; thread < threads; ++thread) {
    float sum = 0.0f;
    for (int64_t vector = thread; vector < vectors; vector += threads) {
      sum = square_eight(x + vector * 8) + sum;
    }
    sums[thread] = sum;
  }
}

void quad_sums(const float* p, int64_t n, bool first_block, float rescale, float* sums) {
  float s[4];
  for (int t = 0; t < 4; ++t) {
    s[t] = (first_block ? p[2 * t] : flush_subnormal(std::fma(rescale, sums[t], p[2 * t]))) + p[2 * t + 1];
  }
  for (int64_t j = 8; j < n; j += 8) {
    for (int t = 0; t < 4; ++t) s[t] = (s[t] + p[j + 2 * t]) + p[j + 2 * t + 1];
  }
  for (int t = 0; t < 4; ++t) sums[t] = s[t];
}

}  // namespace
}  // namespace qf

#define QF_VECTOR_OPS  \
  {widen,              \
   narrow,             \
   round,              \
   max,                \
   row_cells,          \
   exp_parts,          \
   exp2_scaled,        \
   scale_flushed,      \
   rotate,             \
   divide_by_one_plus, \
   thread_exp_sums,    \
   thread_square_sums, \
   thread_pair_sums,   \
   quad_sums}
