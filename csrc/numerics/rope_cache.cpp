#include "numerics/rope_cache.h"

#include "base/error.h"

namespace qf {

void check_rope(float theta, int64_t dim, int64_t positions, const RopeScaling& scaling) {
  require(dim > 0 && dim % 2 == 0 && dim <= 4096, "rotary size must be even and in 2 .. 4096, found ", dim);
  require(positions > 0 && positions <= (int64_t{1} << 24), "rotary positions must be in 1 .. 2^24, found ", positions);
  require(theta > 0 && theta < 1e30f, "rotary theta must be positive and finite, found ", theta);
  require(scaling.factor > 0 && scaling.low_freq_factor > 0 && scaling.high_freq_factor > 0 &&
              scaling.original_max_position > 0,
          "rotary scaling: every number must be positive");
}

std::vector<float> rope_frequencies(const SfuView& sfu, float theta, int dim, const RopeScaling& scaling) {
  std::vector<float> frequencies(static_cast<size_t>(dim / 2));
  for (int i = 0; i < dim / 2; ++i) {
    frequencies[static_cast<size_t>(i)] = rope_scaled_frequency(rope_inverse_frequency(sfu, theta, dim, i), scaling);
  }
  return frequencies;
}

void rope_row(const std::vector<float>& frequencies, int64_t position, float* row) {
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float angle = rope_angle(position, frequencies[i]);
    row[i] = cuda_cosf(angle);
    row[frequencies.size() + i] = cuda_sinf(angle);
  }
}

std::vector<float> rope_cache(const SfuTables& sfu, float theta, int dim, int64_t positions,
                              const RopeScaling& scaling) {
  check_rope(theta, dim, positions, scaling);
  const std::vector<float> frequencies = rope_frequencies(sfu.view(), theta, dim, scaling);
  std::vector<float> cache(static_cast<size_t>(positions * dim));
  for (int64_t position = 0; position < positions; ++position) {
    rope_row(frequencies, position, cache.data() + position * dim);
  }
  return cache;
}

}  // namespace qf
