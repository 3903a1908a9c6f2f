// What a model runs on: where it computes, and the GPU whose arithmetic it computes.
#pragma once

#include "engine/backend.h"

namespace qf {

struct Machine {
  Backend* backend;
  DeviceNumbers device;  // the emulated GPU
  bool deterministic;    // racing sums in canonical order
  uint64_t seed;         // draws the order of racing sums
};

}  // namespace qf
