// Cosines and sines in double, rounded once.
#include <cmath>
#include <numbers>

#include "operators/rotary_cache.h"

namespace qf {
namespace {

double scaled_frequency(double frequency, const RopeScaling& scaling) {
  if (scaling.factor == 1.0f) return frequency;
  const double low = static_cast<double>(scaling.low_freq_factor), high = static_cast<double>(scaling.high_freq_factor);
  const double wavelength = 2.0 * std::numbers::pi / frequency;
  const double turns = static_cast<double>(scaling.original_max_position) / wavelength;  // over the original context
  const double stretched = frequency / static_cast<double>(scaling.factor);
  if (turns > high) return frequency;
  if (turns < low) return stretched;
  const double smooth = (turns - low) / (high - low);
  return (1.0 - smooth) * stretched + smooth * frequency;
}

}  // namespace

void rotary_cache_fp32(const OperatorContext& context, const RotaryCacheArgs& args) {
  const int64_t half = args.head_size / 2;
  context.pool->run(args.positions, [&](int64_t position) {
    float* out = static_cast<float*>(args.out) + position * args.head_size;
    for (int64_t i = 0; i < half; ++i) {
      const double frequency = std::pow(static_cast<double>(args.theta),
                                        -2.0 * static_cast<double>(i) / static_cast<double>(args.head_size));
      const double angle = static_cast<double>(position) * scaled_frequency(frequency, args.scaling);
      out[i] = static_cast<float>(std::cos(angle));
      out[half + i] = static_cast<float>(std::sin(angle));
    }
  });
}

}  // namespace qf
