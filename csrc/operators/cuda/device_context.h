// What every operator on a device gets besides its own arguments.
#pragma once

#include "base/cuda/buffer.h"
#include "operators/cuda/device_sfu.h"
#include "operators/cuda/faults.h"

namespace qf::cuda {

struct DeviceOperatorContext {
  const Allocator* allocator;
  void* stream;
  const DeviceSfu* sfu;  // unused by the fp32 definitions
  const Faults* faults;
};

}  // namespace qf::cuda
