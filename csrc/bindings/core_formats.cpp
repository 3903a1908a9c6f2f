// Conversions between fp32 and the narrow formats, element by element: for tests and for checkpoints of such formats.
#include "base/formats.h"

#include "bindings/arrays.h"
#include "bindings/core_topics.h"

namespace qf::bindings {
namespace {

template <class To, class From>
Array<To> convert(const Array<From>& x, To (*one)(From)) {
  Array<To> result(std::vector<py::ssize_t>(x.shape(), x.shape() + x.ndim()));
  To* out = result.mutable_data();
  py::gil_scoped_release release;
  for (py::ssize_t i = 0; i < x.size(); ++i) out[i] = one(x.data()[i]);
  return result;
}

template <class Code>
void bind_format(py::module_& m, const char* name, float (*decode)(Code), Code (*encode)(float)) {
  m.def((std::string("decode_") + name).c_str(),
        [decode](const Array<Code>& codes) { return convert<float, Code>(codes, decode); },
        py::arg("codes").noconvert());
  m.def((std::string("encode_") + name).c_str(),
        [encode](const Array<float>& x) { return convert<Code, float>(x, encode); }, py::arg("x").noconvert());
}

}  // namespace

void bind_formats(py::module_& m) {
  // lambdas: the functions themselves are always inlined and have no address
  bind_format<uint16_t>(
      m, "fp16", [](uint16_t c) { return half_to_float(c); }, [](float x) { return float_to_half(x); });
  bind_format<uint16_t>(
      m, "bf16", [](uint16_t c) { return bf16_to_float(c); }, [](float x) { return float_to_bf16(x); });
  bind_format<uint8_t>(m, "e4m3", [](uint8_t c) { return e4m3_to_float(c); }, [](float x) { return float_to_e4m3(x); });
  bind_format<uint8_t>(m, "e5m2", [](uint8_t c) { return e5m2_to_float(c); }, [](float x) { return float_to_e5m2(x); });
  m.def(
      "round_to_tf32",
      [](const Array<float>& x) { return convert<float, float>(x, [](float v) { return round_to_tf32(v); }); },
      py::arg("x").noconvert());
  m.def(
      "truncate_to_tf32",
      [](const Array<float>& x) { return convert<float, float>(x, [](float v) { return truncate_to_tf32(v); }); },
      py::arg("x").noconvert());
}

}  // namespace qf::bindings
