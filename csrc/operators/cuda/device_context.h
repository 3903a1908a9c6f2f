// What every operator on a device gets besides its own arguments. None of it changes a result, but a scheme that does
// not serve the emulated unit.
#pragma once

#include <optional>

#include "base/cuda/buffer.h"
#include "numerics/cuda/scheme.h"
#include "operators/cuda/device_sfu.h"
#include "operators/cuda/faults.h"
#include "operators/cuda/flash_items.h"

namespace qf::cuda {

struct DeviceOperatorContext {
  const Allocator* allocator;
  void* stream;
  const DeviceSfu* sfu;  // unused by the fp32 definitions
  const Faults* faults;
  OwnUnit own;  // this GPU's matrix unit, for attention
  // of attention as well; tests and benchmarks alone set a scheme
  std::optional<Scheme> scheme = std::nullopt;  // nothing: attention_scheme
  bool overlapped = false;                      // launches may start while the one before ends (base/cuda/overlap.cuh)
  FlashTables* tables = nullptr;                // kept from layer to layer; null: every call has its own
  size_t workspace = size_t{256} << 20;  // bytes for the parts of split keys; exceeded by a single sequence alone
};

}  // namespace qf::cuda
