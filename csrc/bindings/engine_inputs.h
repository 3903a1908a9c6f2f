// Python's dictionaries and arrays as the engine's structs.
#pragma once

#include <ATen/ATen.h>

#include <string>

#include "bindings/arrays.h"
#include "engine/model_config.h"
#include "engine/session.h"
#include "kernels/gemm.h"
#include "kernels/pack/packed_weight.h"
#include "operators/context.h"

namespace qf::bindings {

ModelConfig parse_config(const py::dict& config);
/// {"fp16": (products, fraction bits, zero exponent), "bf16": ..., "fp16_out": ..., "sm_count", "shared_memory_per_block"}
DeviceNumbers parse_device(const py::dict& device);
/// A copy of the array as a tensor of `dtype`. 16-bit floats come as uint16 bits or float16, and must match `dtype`.
at::Tensor copy_array(const std::string& name, const py::array& array, DType dtype);
/// {"codes" uint8 [K, N], "zeros" uint8 [K/G, N], "scales" uint16 bits [K/G, N], "scale_dtype", "offsets" float32 [K/G, N] or
/// None, "group_index" int32 [K] or None}
PackedWeight parse_codes(const py::dict& weight);
KernelOptions parse_options(const py::dict& options);
/// {"prompt", "forced", "new_tokens", "prefill_offsets", "prefill_ids", "decode_offsets", "decode_ids"}
SequenceRequest parse_request(const py::dict& request);
py::dict rows_dict(const LogprobRows& rows);

}  // namespace qf::bindings
