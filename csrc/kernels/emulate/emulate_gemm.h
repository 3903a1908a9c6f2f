// Carries out a plan on a CPU: the bits of the real kernel, whatever the instruction set or the number of threads.
#pragma once

#include "kernels/gemm.h"
#include "kernels/pack/packed_weight.h"

namespace qf {

void emulate_gemm(const Plan& plan, const PackedWeight& weight, const GemmArgs& args, const ExecutorContext& context);

/// The leaves instead of the outputs: leaves [leaf][m][n], after the leaf rounding. For plans with one tree.
void emulate_leaves(const Plan& plan, const PackedWeight& weight, const GemmArgs& args, const ExecutorContext& context,
                    float* leaves);

/// Every weight as it enters the arithmetic: values [k][n] in the order of the activations.
void dequantize_weight(const Plan& plan, const PackedWeight& weight, const ExecutorContext& context, float* values);

}  // namespace qf
