// vLLM 0.21's act_and_mul kernel: x / (1 + exp(-x)) by CUDA's expf and an IEEE division, rounded to the storage format
// before the product with `up`.
#include <vector>

#include "operators/silu_and_mul.h"
#include "operators/vector_ops.h"

namespace qf {

void silu_and_mul_vllm(const OperatorContext& context, const SiluAndMulArgs& args) {
  const VectorOps& ops = vector_ops(context.isa);
  const int64_t n = args.columns;
  const size_t size = static_cast<size_t>(n);
  context.pool->run(args.rows, [&](int64_t row) {
    std::vector<float> gate(size), up(size), negative(size), scale(size), mantissa(size);
    const uint16_t* x = static_cast<const uint16_t*>(args.x) + row * 2 * n;
    ops.widen(args.dtype, x, n, gate.data());
    ops.widen(args.dtype, x + n, n, up.data());
    for (size_t i = 0; i < size; ++i) negative[i] = -gate[i];
    ops.exp_parts(*context.sfu, negative.data(), 0.0f, n, scale.data(), mantissa.data());
    ops.divide_by_one_plus(gate.data(), scale.data(), mantissa.data(), n);
    ops.round(args.dtype, gate.data(), n);
    for (size_t i = 0; i < size; ++i) gate[i] *= up[i];
    ops.narrow(args.dtype, gate.data(), n, static_cast<uint16_t*>(args.out) + row * n);
  });
}

void silu_and_mul_vllm_notes(const SiluAndMulArgs& args, Notes& notes) {
  if (args.dtype != DType::fp16)
    notes.push_back(std::string("silu_and_mul: ") + dtype_name(args.dtype) + " storage (source only)");
}

}  // namespace qf
