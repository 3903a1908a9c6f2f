// Attention of steps that are recorded and repeated with other key counts.
#pragma once

#include <string_view>
#include <vector>

#include "operators/attention.h"
#include "operators/cuda/device_context.h"

namespace qf::cuda {

/// Puts the items of a call into context.tables ahead of it; pointers in args are not read. Returns what a recording of
/// the call depends on: a recorded call serves another one where these numbers are the same. Empty where a call of this
/// definition or size cannot be recorded.
std::vector<int64_t> place_attention(const DeviceOperatorContext& context, std::string_view definition,
                                     const AttentionArgs& args);

}  // namespace qf::cuda
