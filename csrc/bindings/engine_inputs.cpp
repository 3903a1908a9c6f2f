#include "bindings/engine_inputs.h"

#include <pybind11/stl.h>

#include "engine/tensors.h"

namespace qf::bindings {
namespace {

template <class T>
T field(const py::dict& dict, const char* name) {
  require(dict.contains(name), "missing field '", name, "'");
  return dict[name].cast<T>();
}

template <class T>
std::vector<T> vector_of(const py::dict& dict, const char* name) {
  const auto array = field<Array<T>>(dict, name);
  require(array.ndim() == 1, name, ": expected one dimension, found shape ", shape_text(array));
  return {array.data(), array.data() + array.size()};
}

template <class T>
py::array_t<T> array_of(const std::vector<T>& values) {
  return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

RequestedIds requested(const py::dict& request, const char* offsets, const char* ids, size_t rows) {
  RequestedIds out{vector_of<int64_t>(request, offsets), vector_of<int32_t>(request, ids)};
  if (out.offsets.empty()) return out;
  require(out.offsets.size() == rows + 1, offsets, ": expected ", rows + 1, " entries, found ", out.offsets.size());
  require(out.offsets.front() == 0 && out.offsets.back() == static_cast<int64_t>(out.ids.size()), offsets,
          ": must start at 0 and end at ", out.ids.size());
  for (size_t i = 1; i < out.offsets.size(); ++i)
    require(out.offsets[i] >= out.offsets[i - 1], offsets, ": must not fall");
  return out;
}

}  // namespace

ModelConfig parse_config(const py::dict& config) {
  const ModelConfig out{field<int64_t>(config, "layers"),       field<int64_t>(config, "hidden"),
                        field<int64_t>(config, "intermediate"), field<int64_t>(config, "heads"),
                        field<int64_t>(config, "kv_heads"),     field<int64_t>(config, "head_size"),
                        field<int64_t>(config, "vocabulary"),   field<float>(config, "rms_epsilon")};
  require(out.layers > 0 && out.hidden > 0 && out.intermediate > 0 && out.heads > 0 && out.kv_heads > 0 &&
              out.head_size > 0 && out.vocabulary > 0,
          "model configuration: every size must be positive");
  require(out.heads % out.kv_heads == 0, "model configuration: ", out.heads, " heads are no multiple of ", out.kv_heads,
          " key-value heads");
  return out;
}

at::Tensor copy_array(const std::string& name, const py::array& array, DType dtype) {
  const py::dtype found = array.dtype();
  const bool wide = dtype == DType::fp32;
  const bool matches = wide ? found.is(py::dtype::of<float>()) || (found.kind() == 'f' && found.itemsize() == 4)
                            : found.kind() == 'u' && found.itemsize() == 2;
  require(matches, name, ": expected ", wide ? "float32" : "uint16 bits", ", found ",
          py::str(static_cast<const py::object&>(found)).cast<std::string>());
  require((array.flags() & py::array::c_style) != 0, name, ": the array must be C-contiguous");
  std::vector<int64_t> shape(array.shape(), array.shape() + array.ndim());
  at::Tensor out = at::empty(shape, at::TensorOptions().dtype(scalar_type(dtype)));
  std::memcpy(out.data_ptr(), array.data(), static_cast<size_t>(array.nbytes()));
  return out;
}

SequenceRequest parse_request(const py::dict& request) {
  SequenceRequest out;
  out.prompt = vector_of<int64_t>(request, "prompt");
  out.forced = vector_of<int64_t>(request, "forced");
  out.new_tokens = field<int64_t>(request, "new_tokens");
  out.prompt_logprobs = field<bool>(request, "prompt_logprobs");
  require(out.new_tokens >= 0, "new_tokens must not be negative, got ", out.new_tokens);
  require(out.forced.empty() || static_cast<int64_t>(out.forced.size()) == out.new_tokens,
          "forced: ", out.forced.size(), " ids for ", out.new_tokens, " new tokens");
  out.prefill_ids =
      requested(request, "prefill_offsets", "prefill_ids", out.prompt.empty() ? 0 : out.prompt.size() - 1);
  out.decode_ids = requested(request, "decode_offsets", "decode_ids", static_cast<size_t>(out.new_tokens));
  return out;
}

py::dict rows_dict(const LogprobRows& rows) {
  py::dict out;
  out["targets"] = array_of(rows.targets);
  out["offsets"] = array_of(rows.offsets);
  out["ids"] = array_of(rows.ids);
  out["logprobs"] = array_of(rows.logprobs);
  return out;
}

}  // namespace qf::bindings
