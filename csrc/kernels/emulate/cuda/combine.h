// Partial sums of a pass become outputs: the tree's additions, racing ones in a drawn order, then the epilogue.
#pragma once

#include "kernels/emulate/cuda/device_plan.h"
#include "kernels/emulate/cuda/device_weight.h"
#include "kernels/gemm.h"

namespace qf::cuda {

struct CombineCall {
  const DevicePlan* plan;
  const Pass* pass;
  const DeviceWeight* weight;  // channel scales
  float* partials;
  uint64_t seed;
  bool deterministic;
  void* stream;
};

void combine(const CombineCall& call, const GemmArgs& args);

}  // namespace qf::cuda
