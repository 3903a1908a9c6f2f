// Python's dictionaries and arrays as the engine's structs.
#pragma once

#include <ATen/ATen.h>

#include <string>

#include "bindings/arrays.h"
#include "engine/model_config.h"
#include "engine/session.h"
#include "operators/context.h"

namespace qf::bindings {

ModelConfig parse_config(const py::dict& config);
/// A copy of the array as a tensor of `dtype`. 16-bit floats come as uint16 bits or float16, and must match `dtype`.
at::Tensor copy_array(const std::string& name, const py::array& array, DType dtype);
/// {"prompt", "forced", "new_tokens", "prompt_logprobs", "prefill_offsets", "prefill_ids", "decode_offsets",
/// "decode_ids"}
SequenceRequest parse_request(const py::dict& request);
py::dict rows_dict(const LogprobRows& rows);

}  // namespace qf::bindings
