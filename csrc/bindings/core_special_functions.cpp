#include <memory>
#include <string_view>

#include "bindings/arrays.h"
#include "bindings/core_topics.h"
#include "numerics/rope_cache.h"

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

using RowFunction = void (SfuTables::*)(const float* x, float* y, int64_t count) const;

Array<float> map_row(const SfuTables& tables, const Array<float>& x, RowFunction function) {
  Array<float> result(std::vector<py::ssize_t>(x.shape(), x.shape() + x.ndim()));
  float* out = result.mutable_data();
  py::gil_scoped_release release;
  (tables.*function)(x.data(), out, x.size());
  return result;
}

std::unique_ptr<SfuTables> make_tables(std::string_view ex2, std::string_view rcp, std::string_view rsqrt,
                                       std::string_view lg2, std::string_view lg2_below) {
  const SfuDifferences data{span_of<int8_t>(ex2), span_of<int8_t>(rcp), span_of<int8_t>(rsqrt), span_of<uint8_t>(lg2),
                            span_of<uint8_t>(lg2_below)};
  py::gil_scoped_release release;
  return std::make_unique<SfuTables>(data);
}

std::unique_ptr<SfuTables> with_lg2(const SfuTables& tables, std::string_view planes, bool below) {
  py::gil_scoped_release release;
  return std::make_unique<SfuTables>(tables, below ? SfuLogRange::below : SfuLogRange::above, span_of<uint8_t>(planes));
}

Array<float> make_rope_cache(const SfuTables& t, float theta, int dim, int64_t positions, float factor,
                             float low_freq_factor, float high_freq_factor, float original_max_position) {
  std::vector<float> cache;
  {
    py::gil_scoped_release release;
    cache = rope_cache(t, theta, dim, positions, {factor, low_freq_factor, high_freq_factor, original_max_position});
  }
  return Array<float>({static_cast<py::ssize_t>(positions), static_cast<py::ssize_t>(dim)}, cache.data());
}

}  // namespace

void bind_special_functions(py::module_& m) {
  const auto x = py::arg("x").noconvert();
  using Floats = const Array<float>&;
  py::class_<SfuTables>(m, "SfuTables", "Tables of the special-function unit; see special_function_unit.h.")
      .def(py::init(&make_tables), py::kw_only(), py::arg("ex2"), py::arg("rcp"), py::arg("rsqrt"), py::arg("lg2") = "",
           py::arg("lg2_below") = "", "From the bytes of first differences; lg2's two may be left out.")
      .def("with_lg2", &with_lg2, py::arg("planes"), py::kw_only(), py::arg("below"),
           "These tables and lg2 of [1, 2), or of [1/2, 1) where `below`; lg2 works once it has both.")
      .def_property_readonly("has_lg2", &SfuTables::has_lg2)
      .def_property_readonly("nbytes", &SfuTables::bytes)
      .def(
          "ex2", [](const SfuTables& t, Floats a) { return map_row(t, a, &SfuTables::ex2); }, x)
      .def(
          "rcp", [](const SfuTables& t, Floats a) { return map_row(t, a, &SfuTables::rcp); }, x)
      .def(
          "rsqrt", [](const SfuTables& t, Floats a) { return map_row(t, a, &SfuTables::rsqrt); }, x)
      .def(
          "lg2", [](const SfuTables& t, Floats a) { return map_row(t, a, &SfuTables::lg2); }, x)
      .def(
          "expf",
          [](const SfuTables& t, Floats a) { return map(a, [v = t.view()](float e) { return cuda_expf(v, e); }); }, x)
      .def(
          "add_expf",
          [](const SfuTables& t, Floats a, float c) {
            return map(a, [v = t.view(), c](float e) { return cuda_add_exp(v, c, e); });
          },
          x, py::arg("c"), "c + expf(x) as nvcc contracts it.")
      .def(
          "rsqrtf",
          [](const SfuTables& t, Floats a) { return map(a, [v = t.view()](float e) { return cuda_rsqrtf(v, e); }); }, x)
      .def(
          "powf",
          [](const SfuTables& t, Floats a, float y) {
            return map(a, [v = t.view(), y](float e) { return cuda_powf(v, e, y); });
          },
          x, py::arg("y"))
      .def("rope_cache", &make_rope_cache, py::kw_only(), py::arg("theta"), py::arg("dim"), py::arg("positions"),
           py::arg("factor") = 1.0f, py::arg("low_freq_factor") = 1.0f, py::arg("high_freq_factor") = 4.0f,
           py::arg("original_max_position") = 8192.0f,
           "cos and sin in fp32, [positions, dim], cos in the first half of a row.");
  m.def("cuda_logf", [](Floats a) { return map(a, [](float e) { return cuda_logf(e); }); }, x);
  m.def("cuda_sinf", [](Floats a) { return map(a, [](float e) { return cuda_sinf(e); }); }, x);
  m.def("cuda_cosf", [](Floats a) { return map(a, [](float e) { return cuda_cosf(e); }); }, x);
}

}  // namespace qf::bindings
