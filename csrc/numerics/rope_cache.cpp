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

std::vector<float> rope_cache(const SfuTables& sfu, float theta, int dim, int64_t positions,
                              const RopeScaling& scaling) {
  check_rope(theta, dim, positions, scaling);
  const int half = dim / 2;
  std::vector<float> frequency(static_cast<size_t>(half));
  for (int i = 0; i < half; ++i) {
    frequency[static_cast<size_t>(i)] =
        rope_scaled_frequency(rope_inverse_frequency(sfu.view(), theta, dim, i), scaling);
  }
  std::vector<float> cache(static_cast<size_t>(positions * dim));
  for (int64_t position = 0; position < positions; ++position) {
    float* row = cache.data() + position * dim;
    for (int i = 0; i < half; ++i) {
      const float angle = rope_angle(position, frequency[static_cast<size_t>(i)]);
      row[i] = cuda_cosf(angle);
      row[half + i] = cuda_sinf(angle);
    }
  }
  return cache;
}

}  // namespace qf
