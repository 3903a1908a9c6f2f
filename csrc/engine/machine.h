// What a model runs on: the machine that computes and the GPU whose arithmetic it computes.
#pragma once

#include <string>

#include "kernels/gemm.h"
#include "operators/context.h"

namespace qf {

struct Machine {
  Isa isa;
  ThreadPool* pool;
  const SfuView* special;
  DeviceNumbers device;  // the emulated GPU
  bool deterministic;    // racing sums in canonical order
  uint64_t seed;         // draws the order of racing sums

  OperatorContext operators() const { return {isa, pool, special}; }
};

}  // namespace qf
