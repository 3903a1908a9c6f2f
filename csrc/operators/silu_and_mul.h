// The gated activation of the MLP: silu(gate) * up.
#pragma once

#include "operators/context.h"

namespace qf {

struct SiluAndMulArgs {
  DType dtype;
  const void* x;  // [rows][2 * columns]: gate, then up
  void* out;      // [rows][columns]
  int64_t rows;
  int64_t columns;
};

void silu_and_mul_vllm(const OperatorContext& context, const SiluAndMulArgs& args);
void silu_and_mul_fp32(const OperatorContext& context, const SiluAndMulArgs& args);

}  // namespace qf
