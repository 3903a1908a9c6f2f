// Carries out a plan on a CPU: the bits of the real kernel, whatever the instruction set or the number of threads.
#pragma once

#include "kernels/gemm.h"
#include "kernels/pack/packed_weight.h"

namespace qf {

void emulate_gemm(const Plan& plan, const PackedWeight& weight, const GemmArgs& args, const ExecutorContext& context);

}  // namespace qf
