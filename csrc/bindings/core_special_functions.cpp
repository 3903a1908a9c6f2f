#include <string_view>

#include "bindings/arrays.h"
#include "bindings/core_topics.h"
#include "numerics/special_function_unit.h"

namespace qf::bindings {
namespace {

template <class T>
std::span<const T> span_of(std::string_view bytes) {
  return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
}

/// One result per element; the shape is x's.
template <class Function>
Array<float> map(const Array<float>& x, Function function) {
  Array<float> result(std::vector<py::ssize_t>(x.shape(), x.shape() + x.ndim()));
  const float* in = x.data();
  float* out = result.mutable_data();
  const py::ssize_t count = x.size();
  py::gil_scoped_release release;
  for (py::ssize_t i = 0; i < count; ++i) out[i] = function(in[i]);
  return result;
}

}  // namespace

void bind_special_functions(py::module_& m) {
  py::class_<SfuTables>(m, "SfuTables", "Tables of the special-function unit; see special_function_unit.h.")
      .def(py::init([](std::string_view ex2, std::string_view rcp, std::string_view rsqrt, std::string_view lg2,
                       std::string_view lg2_below) {
             const SfuDifferences data{span_of<int8_t>(ex2), span_of<int8_t>(rcp), span_of<int8_t>(rsqrt),
                                       span_of<uint8_t>(lg2), span_of<uint8_t>(lg2_below)};
             py::gil_scoped_release release;
             return std::make_unique<SfuTables>(data);
           }),
           py::kw_only(), py::arg("ex2"), py::arg("rcp"), py::arg("rsqrt"), py::arg("lg2") = "", py::arg("lg2_below") = "",
           "From the bytes of first differences; lg2's two may be left out.")
      .def_property_readonly("has_lg2", &SfuTables::has_lg2)
      .def_property_readonly("nbytes", &SfuTables::bytes)
      .def("ex2", [](const SfuTables& t, const Array<float>& x) { return map(x, [&](float v) { return t.ex2(v); }); },
           py::arg("x").noconvert())
      .def("rcp", [](const SfuTables& t, const Array<float>& x) { return map(x, [&](float v) { return t.rcp(v); }); },
           py::arg("x").noconvert())
      .def("rsqrt", [](const SfuTables& t, const Array<float>& x) { return map(x, [&](float v) { return t.rsqrt(v); }); },
           py::arg("x").noconvert())
      .def("lg2",
           [](const SfuTables& t, const Array<float>& x) {
             require(t.has_lg2(), "these tables were made without lg2");
             return map(x, [&](float v) { return t.lg2(v); });
           },
           py::arg("x").noconvert());
}

}  // namespace qf::bindings
