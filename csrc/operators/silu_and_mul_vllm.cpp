// vLLM 0.21's act_and_mul kernel: x / (1 + exp(-x)) by CUDA's expf and an IEEE division, rounded to the storage format
// before the product with `up`.
#include "operators/silu_and_mul.h"
#include "operators/vector_ops.h"

namespace qf {

void silu_and_mul_vllm(const OperatorContext& context, const SiluAndMulArgs& args) {
  const VectorOps& ops = vector_ops(context.isa);
  const int64_t n = args.columns;
  context.pool->run(args.rows, [&](int64_t row) {
    const auto gate = scratch(n), up = scratch(n), scale = scratch(n), mantissa = scratch(n);
    const uint16_t* x = static_cast<const uint16_t*>(args.x) + row * 2 * n;
    ops.widen(args.dtype, x, n, gate.get());
    ops.widen(args.dtype, x + n, n, up.get());
    for (int64_t i = 0; i < n; ++i) scale[i] = -gate[i];
    ops.exp_parts(*context.sfu, scale.get(), 0.0f, n, scale.get(), mantissa.get());
    ops.divide_by_one_plus(gate.get(), scale.get(), mantissa.get(), n);
    ops.round(args.dtype, gate.get(), n);
    for (int64_t i = 0; i < n; ++i) gate[i] *= up[i];
    ops.narrow(args.dtype, gate.get(), n, static_cast<uint16_t*>(args.out) + row * n);
  });
}

}  // namespace qf
