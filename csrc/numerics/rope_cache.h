// The cos/sin cache of rotary embeddings as vLLM 0.21 builds it with torch on a GPU: every step one fp32 rounding.
//
//   inv_freq_i = 1 / powf(theta, 2i / d)     angle = float(position) * inv_freq_i     cosf, sinf, then fp16 or bf16
//
// Source: vLLM's rotary_embedding (RotaryEmbedding, Llama3RotaryEmbedding) and torch's CUDA arithmetic (scalar / tensor
// is reciprocal times scalar, tensor / scalar is times the scalar's reciprocal). Confirmed by recordings for theta =
// 1e5, d = 64
// (../tests); head sizes that are no power of two and the Llama 3 scaling are from the source only.
#pragma once
// nvcc: x[0] = qf::rope_scaled_frequency(qf::rope_inverse_frequency(sfu, x[1], 64, 3), {});

#include <cstdint>
#include <vector>

#include "numerics/cuda_math.h"
#include "numerics/cuda_trig.h"

namespace qf {

/// Llama 3's stretching of low frequencies; factor 1 means none.
struct RopeScaling {
  float factor = 1.0f;
  float low_freq_factor = 1.0f;
  float high_freq_factor = 4.0f;
  float original_max_position = 8192.0f;
};

/// i < dim / 2.
QF_HD inline float rope_inverse_frequency(const SfuView& sfu, float theta, int dim, int i) {
  const float exponent = mul_rn(static_cast<float>(2 * i), 1.0f / static_cast<float>(dim));
  return 1.0f / cuda_powf(sfu, theta, exponent);
}

QF_HD inline float rope_scaled_frequency(float frequency, const RopeScaling& scaling) {
  if (scaling.factor == 1.0f) return frequency;
  const float wavelength = mul_rn(1.0f / frequency, 6.28318530717958647692f);
  const float shrink = 1.0f / scaling.factor;
  if (wavelength < scaling.original_max_position / scaling.high_freq_factor) return frequency;
  if (!(wavelength > scaling.original_max_position / scaling.low_freq_factor)) {
    const float span = scaling.high_freq_factor - scaling.low_freq_factor;
    const float turns = mul_rn(1.0f / wavelength, scaling.original_max_position);
    const float smooth = span == 0.0f ? 0.0f : mul_rn(add_rn(turns, -scaling.low_freq_factor), 1.0f / span);
    return add_rn(mul_rn(mul_rn(1.0f - smooth, frequency), shrink), mul_rn(smooth, frequency));
  }
  return mul_rn(frequency, shrink);
}

QF_HD inline float rope_angle(int64_t position, float frequency) {
  return mul_rn(static_cast<float>(position), frequency);
}

/// Throws Error unless a cache of such sizes and numbers makes sense.
void check_rope(float theta, int64_t dim, int64_t positions, const RopeScaling& scaling);

/// Scaled frequencies of the dim / 2 pairs.
std::vector<float> rope_frequencies(const SfuView& sfu, float theta, int dim, const RopeScaling& scaling);
/// One row of a cache in fp32: cosines, then sines.
void rope_row(const std::vector<float>& frequencies, int64_t position, float* row);
/// The whole cache in fp32, before its rounding to the model's type: [positions][dim], cos in the first half of a row.
std::vector<float> rope_cache(const SfuTables& sfu, float theta, int dim, int64_t positions,
                              const RopeScaling& scaling);

}  // namespace qf
