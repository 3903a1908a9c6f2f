// Scale, bias and the roundings around them of one output; the caller stores with the last rounding.
#pragma once

#include "kernels/emulate/cuda/narrow.cuh"
#include "kernels/emulate/round_to_odd.h"

namespace qf::cuda {

__device__ __forceinline__ float finished(const Epilogue& rule, float sum, float channel_scale, float bias) {
  const Narrow narrow = narrow_for(rule.output);
  if (rule.bias == BiasRule::before_rounding) sum = __fadd_rn(sum, bias);
  if (rule.channel_scale) sum = __fmul_rn(narrowed(narrow, sum), channel_scale);  // exact
  if (rule.bias == BiasRule::fused_scale) sum = add_to_odd(sum, bias);
  if (rule.bias == BiasRule::after_rounding) sum = __fadd_rn(narrowed(narrow, sum), bias);
  return sum;
}

}  // namespace qf::cuda
