#include <string>

#include "bindings/arrays.h"
#include "bindings/core_topics.h"
#include "numerics/unit_arithmetic.h"

#ifdef QF_WITH_CUDA
#include "base/cuda/gpu.h"
#include "numerics/cuda/dot_add.h"
#endif

namespace qf::bindings {
namespace {

Rounding parse_rounding(const std::string& name) {
  if (name == "fp32_toward_zero") return Rounding::fp32_toward_zero;
  if (name == "e8m13_toward_zero") return Rounding::e8m13_toward_zero;
  require(name == "fp16_nearest_even", "unknown rounding '", name,
          "'; one of: fp32_toward_zero, e8m13_toward_zero, fp16_nearest_even");
  return Rounding::fp16_nearest_even;
}

const char* rounding_name(Rounding rounding) {
  switch (rounding) {
    case Rounding::fp32_toward_zero: return "fp32_toward_zero";
    case Rounding::e8m13_toward_zero: return "e8m13_toward_zero";
    case Rounding::fp16_nearest_even: return "fp16_nearest_even";
  }
  return "";
}

const char* method_name(UnitMethod method) {
  switch (method) {
    case UnitMethod::fused: return "fused";
    case UnitMethod::through_fp16: return "through_fp16";
    case UnitMethod::exact_int32: return "exact_int32";
  }
  return "";
}

py::dict unit_dict(const DeviceUnit& unit) {
  py::dict d;
  d["path"] = unit.path;
  d["dtype"] = format_name(unit.input);
  d["out"] = format_name(unit.output);
  d["method"] = method_name(unit.method);
  d["products"] = unit.unit.products;
  d["fraction_bits"] = unit.unit.fraction_bits;
  d["rounding"] = rounding_name(unit.unit.rounding);
  d["zero_exponent"] = unit.unit.zero_exponent;
  d["step"] = unit.step();
  d["source"] = unit.source;
  return d;
}

py::dict device_dict(const DeviceProfile& device) {
  py::dict d;
  d["name"] = device.name;
  d["title"] = device.title;
  d["architecture"] = device.architecture;
  d["compute_capability"] = py::make_tuple(device.compute_capability / 10, device.compute_capability % 10);
  d["sm_count"] = device.sm_count;
  d["shared_memory_per_block"] = device.shared_memory_per_block;
  d["source"] = device.source;
  py::list units;
  for (const DeviceUnit& unit : device_units()) {
    if (unit.architecture == device.architecture) units.append(unit_dict(unit));
  }
  d["units"] = units;
  return d;
}

py::ssize_t check_rows(const py::array& a, const py::array& b, const py::array& c) {
  require_shape(a, {-1, -1}, "a");
  require_shape(b, {a.shape(0), a.shape(1)}, "b");
  require_shape(c, {a.shape(0)}, "c");
  return a.shape(0);
}

/// dot_add_rows(arguments...) by the CPU, or by the first GPU of this machine.
template <class... Arguments>
void run_rows(bool on_gpu, Arguments... arguments) {
  if (!on_gpu) return dot_add_rows(arguments...);
#ifdef QF_WITH_CUDA
  cuda::require_gpu(0);
  cuda::dot_add_rows(arguments..., cuda::runtime_allocator(), nullptr);
#else
  throw Error("this build of qforensics has no CUDA code: build it where nvcc 12.8 or newer is on PATH (QF_CUDA=ON)");
#endif
}

Array<float> dot_add(const DeviceUnit& unit, const Array<float>& a, const Array<float>& b, const Array<float>& c,
                     bool on_gpu) {
  const py::ssize_t count = check_rows(a, b, c);
  Array<float> result(count);
  float* out = result.mutable_data();
  const py::ssize_t length = a.shape(1);
  py::gil_scoped_release release;
  run_rows<const DeviceUnit&>(on_gpu, unit, a.data(), b.data(), c.data(), count, length, out);
  return result;
}

Array<float> dot_add_device(const Array<float>& a, const Array<float>& b, const Array<float>& c,
                            const std::string& device, const std::string& path, const std::string& dtype,
                            const std::string& out, bool on_gpu) {
  return dot_add(find_unit(find_device(device), path, parse_input_format(dtype), parse_output_format(out)), a, b, c,
                 on_gpu);
}

Array<float> dot_add_unit(const Array<float>& a, const Array<float>& b, const Array<float>& c, int products,
                          int fraction_bits, const std::string& rounding, int zero_exponent, int input_exponent,
                          bool on_gpu) {
  DeviceUnit unit{};
  unit.method = UnitMethod::fused;
  unit.unit = {products, fraction_bits, parse_rounding(rounding), zero_exponent, input_exponent};
  check_unit(unit.unit);
  return dot_add(unit, a, b, c, on_gpu);
}

Array<int32_t> dot_add_int8(const Array<float>& a, const Array<float>& b, const Array<int32_t>& c, bool on_gpu) {
  const py::ssize_t count = check_rows(a, b, c);
  require(first_unrepresentable(InputFormat::int8, a.data(), a.size()) < 0, "a: expected int8 values");
  require(first_unrepresentable(InputFormat::int8, b.data(), b.size()) < 0, "b: expected int8 values");
  Array<int32_t> result(count);
  int32_t* out = result.mutable_data();
  const py::ssize_t length = a.shape(1);
  py::gil_scoped_release release;
  run_rows(on_gpu, a.data(), b.data(), c.data(), count, length, out);
  return result;
}

int64_t unrepresentable_input(const std::string& format, const Array<float>& values) {
  return first_unrepresentable(parse_input_format(format), values.data(), values.size());
}

}  // namespace

void bind_numerics(py::module_& m) {
  const auto a = py::arg("a").noconvert(), b = py::arg("b").noconvert(), c = py::arg("c").noconvert();
  m.def("device_profiles", [] {
    py::list all;
    for (const DeviceProfile& device : device_profiles()) all.append(device_dict(device));
    return all;
  });
  m.def(
      "find_device", [](const std::string& name) { return std::string(find_device(name).name); }, py::arg("name"),
      "The full name of the device meant by a forgiving one; CoreError with the close matches.");
  m.def(
      "find_unit",
      [](const std::string& device, const std::string& path, const std::string& dtype, const std::string& out) {
        return unit_dict(find_unit(find_device(device), path, parse_input_format(dtype), parse_output_format(out)));
      },
      py::kw_only(), py::arg("device"), py::arg("path"), py::arg("dtype"), py::arg("out"));
  m.def("first_unrepresentable", &unrepresentable_input, py::arg("format"), py::arg("values").noconvert(),
        "Flat index of the first value that the format cannot hold, or -1.");
  m.def("dot_add_device", &dot_add_device, a, b, c, py::kw_only(), py::arg("device"), py::arg("path"), py::arg("dtype"),
        py::arg("out"), py::arg("on_gpu"), "fused_dot_add of rows: a, b [rows, K], c [rows].");
  m.def("dot_add_unit", &dot_add_unit, a, b, c, py::kw_only(), py::arg("products"), py::arg("fraction_bits"),
        py::arg("rounding"), py::arg("zero_exponent"), py::arg("input_exponent"), py::arg("on_gpu"));
  m.def("dot_add_int8", &dot_add_int8, a, b, c, py::kw_only(), py::arg("on_gpu"));
}

}  // namespace qf::bindings
