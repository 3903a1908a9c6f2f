// Rotary embedding in fp32, with an fp32 cache.
#include "operators/elements.h"
#include "operators/rotary.h"

namespace qf {

void rotary_fp32(const OperatorContext& context, const RotaryArgs& args) {
  const int64_t half = args.head_size / 2;
  check_positions(args);
  context.pool->run(args.tokens, [&](int64_t token) {
    const float* cosine = static_cast<const float*>(args.cache) + args.positions[token] * args.head_size;
    const float* sine = cosine + half;
    for (int64_t head = 0; head < args.heads; ++head) {
      float* x = static_cast<float*>(args.x) + token * args.stride + head * args.head_size;
      float* y = x + half;
      for (int64_t i = 0; i < half; ++i) {
        const float turned = x[i] * cosine[i] - y[i] * sine[i];
        y[i] = one_nan(y[i] * cosine[i] + x[i] * sine[i]);
        x[i] = one_nan(turned);
      }
    }
  });
}

}  // namespace qf
