// silu(gate) * up in fp32.
#include <cmath>

#include "operators/elements.h"
#include "operators/portable_math.h"
#include "operators/silu_and_mul.h"

namespace qf {

void silu_and_mul_fp32(const OperatorContext& context, const SiluAndMulArgs& args) {
  context.pool->run(args.rows, [&](int64_t row) {
    const float* gate = static_cast<const float*>(args.x) + row * 2 * args.columns;
    const float* up = gate + args.columns;
    float* out = static_cast<float*>(args.out) + row * args.columns;
    for (int64_t i = 0; i < args.columns; ++i) {
      const float e = portable_exp(-std::fabs(gate[i]));  // sigmoid from the side that cannot overflow
      const float sigmoid = (gate[i] >= 0.0f ? 1.0f : e) / (1.0f + e);
      out[i] = one_nan(gate[i] * sigmoid * up[i]);
    }
  });
}

}  // namespace qf
