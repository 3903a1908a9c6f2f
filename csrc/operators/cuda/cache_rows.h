#pragma once

#include "operators/cache_rows.h"
#include "operators/cuda/device_context.h"

namespace qf::cuda {

/// args hold device pointers, positions too.
void store_cache_rows(const DeviceOperatorContext& context, const CacheRowsArgs& args);

}  // namespace qf::cuda
