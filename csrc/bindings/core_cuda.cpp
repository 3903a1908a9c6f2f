// The GPU of this machine, and executors that run on it over NumPy arrays (tests and benchmarks; the engine passes
// tensors). A build without CUDA has the same names; they say that it is one.
#include <pybind11/stl.h>

#include <optional>

#include "bindings/arrays.h"
#include "bindings/core_topics.h"
#include "bindings/kernel_arrays.h"
#include "kernels/pack/packed_weight.h"

#ifdef QF_WITH_CUDA
#include "base/cuda/gpu.h"
#include "base/cuda/stopwatch.h"
#include "kernels/emulate/cuda/emulate_gemm_cuda.h"
#include "numerics/cuda/self_test.h"
#endif

namespace qf::bindings {
namespace {

#ifdef QF_WITH_CUDA

py::dict gpu_info(int index) {
  const cuda::Gpu gpu = cuda::require_gpu(index);
  py::dict out;
  out["name"] = gpu.name;
  out["compute_capability"] = gpu.compute_capability;
  out["sm_count"] = gpu.sm_count;
  out["memory"] = gpu.memory;
  out["driver_version"] = gpu.driver_version;
  return out;
}

/// First row and number of rows.
using Rows = std::pair<int64_t, int64_t>;

/// Operands of one call on the first GPU.
struct DeviceCall {
  cuda::OwnUnit own;
  const cuda::Allocator& allocator = cuda::runtime_allocator();
  cuda::DeviceWeight weight;
  cuda::DevicePlan plan;
  cuda::Buffer<char> activations, bias, out;

  DeviceCall(const Plan& host_plan, const PackedWeight& host_weight, const void* x, size_t x_bytes, const void* addend,
             size_t addend_bytes, size_t out_bytes, size_t workspace)
      : own(cuda::own_unit(cuda::require_gpu(0).compute_capability)),
        weight(cuda::upload_weight(host_weight, allocator, nullptr)),
        plan(cuda::make_device_plan(host_plan, allocator, nullptr, workspace)),
        activations(cuda::upload(allocator, static_cast<const char*>(x), x_bytes, nullptr)),
        bias(cuda::upload(allocator, static_cast<const char*>(addend), addend_bytes, nullptr)),
        out(allocator, out_bytes, nullptr) {}

  void run(cuda::Scheme scheme, uint64_t seed, bool deterministic, Rows rows) const {
    const Plan& p = plan.plan();
    const GemmArgs args{activations.data(), p.k, bias.data(), out.data(), p.n, rows.first, rows.second};
    cuda::emulate_gemm(plan, weight, args, {&allocator, nullptr, own, seed, deterministic}, scheme);
  }
};

py::array emulate_gemm_cuda(const Plan& plan, const PackedWeight& weight, const py::array& activations,
                            const std::optional<py::array>& bias, uint64_t seed, bool deterministic,
                            const std::optional<std::string>& scheme, size_t workspace,
                            const std::optional<std::pair<int64_t, int64_t>>& rows) {
  check_gemm_arrays(plan, activations, bias);
  const Rows part = rows.value_or(Rows{0, plan.m});
  require(part.second >= 0, "rows: ", part.second, " of them");
  py::array out = new_output(plan, part.second);
  void* host_out = out.mutable_data();
  const void *x = activations.data(), *addend = bias ? bias->data() : nullptr;
  const auto x_bytes = static_cast<size_t>(activations.nbytes()), out_bytes = static_cast<size_t>(out.nbytes());
  const size_t addend_bytes = bias ? static_cast<size_t>(bias->nbytes()) : 0;
  py::gil_scoped_release release;
  const DeviceCall call(plan, weight, x, x_bytes, addend, addend_bytes, out_bytes, workspace);
  call.run(scheme ? cuda::parse_scheme(*scheme) : cuda::plan_scheme(plan, call.own), seed, deterministic, part);
  cuda::copy_to_host(host_out, call.out.data(), out_bytes, nullptr);
  return out;
}

/// Milliseconds of each of `repeats` calls after one to warm up, operands already on the GPU.
std::vector<float> time_gemm_cuda(const Plan& plan, const PackedWeight& weight, const py::array& activations,
                                  const std::optional<std::string>& scheme, int repeats) {
  check_gemm_arrays(plan, activations, std::nullopt);
  const void* x = activations.data();
  const auto x_bytes = static_cast<size_t>(activations.nbytes());
  const size_t out_bytes = static_cast<size_t>(plan.m * plan.n) * (plan.epilogue.output == Format::fp32 ? 4 : 2);
  py::gil_scoped_release release;
  cuda::keep_freed_memory();
  const DeviceCall call(plan, weight, x, x_bytes, nullptr, 0, out_bytes, cuda::kWorkspace);
  const cuda::Scheme chosen = scheme ? cuda::parse_scheme(*scheme) : cuda::plan_scheme(plan, call.own);
  return cuda::time_calls(repeats, nullptr, [&] { call.run(chosen, 0, true, {0, plan.m}); });
}

py::tuple step_test(int products, int fraction_bits, int zero_exponent, bool half_output, int input_exponent,
                    const std::string& scheme, int inputs, uint64_t seed, int64_t outputs) {
  require(inputs >= 0 && inputs < cuda::kStepInputs, "inputs: 0 to ", cuda::kStepInputs - 1);
  const Rounding rounding = half_output ? Rounding::fp16_nearest_even : Rounding::fp32_toward_zero;
  const MatrixUnit unit{products, fraction_bits, rounding, zero_exponent, input_exponent};
  cuda::StepTest test{unit, cuda::Scheme::native, static_cast<cuda::StepInputs>(inputs), seed, outputs};
  const bool wgmma = scheme == "wgmma";  // not a scheme: the other instruction of the GPU's own unit
  if (!wgmma) test.scheme = cuda::parse_scheme(scheme);
  const cuda::StepTestResult result =
      (wgmma ? cuda::run_wgmma_test : cuda::run_step_test)(test, cuda::runtime_allocator(), nullptr);
  return py::make_tuple(result.outputs, result.differing, result.expected, result.found);
}

std::string step_scheme(int products, int fraction_bits, int compute_capability) {
  const MatrixUnit unit{products, fraction_bits, Rounding::fp32_toward_zero, -108 - fraction_bits, -14};
  return cuda::scheme_name(cuda::scheme_for(unit, cuda::own_unit(compute_capability)));
}

void bind_gpu_only(py::module_& m) {
  m.attr("default_workspace") = cuda::kWorkspace;
  m.def("gpu_count", &cuda::gpu_count);
  m.def("why_no_gpu", &cuda::why_no_gpu);
  m.def("require_faithful_gpu", &cuda::require_faithful_gpu, py::arg("index"));
  m.def("step_scheme", &step_scheme, py::arg("products"), py::arg("fraction_bits"), py::arg("compute_capability"),
        "The scheme that such a unit's steps take on a GPU of this compute capability (90 for 9.0).");
  m.def("step_test", &step_test, py::arg("products"), py::arg("fraction_bits"), py::arg("zero_exponent"),
        py::arg("half_output"), py::arg("input_exponent"), py::arg("scheme"), py::arg("inputs"), py::arg("seed"),
        py::arg("outputs"));
  m.def("time_gemm_cuda", &time_gemm_cuda, py::arg("plan"), py::arg("weight"), py::arg("activations"),
        py::arg("scheme"), py::arg("repeats"));
}

#else

[[noreturn]] void refuse() {
  throw Error("this build of qforensics has no CUDA code: build it where nvcc 12.8 or newer is on PATH (QF_CUDA=ON)");
}
py::dict gpu_info(int) { refuse(); }
py::array emulate_gemm_cuda(const Plan&, const PackedWeight&, const py::array&, const std::optional<py::array>&,
                            uint64_t, bool, const std::optional<std::string>&, size_t,
                            const std::optional<std::pair<int64_t, int64_t>>&) {
  refuse();
}
void bind_gpu_only(py::module_& m) {
  m.attr("default_workspace") = size_t{0};
  m.def("gpu_count", [] { return 0; });
  m.def("why_no_gpu", [] { return std::string("this build of qforensics has no CUDA code"); });
}

#endif

}  // namespace

void bind_cuda(py::module_& m) {
#ifdef QF_WITH_CUDA
  m.attr("built_with_cuda") = true;
#else
  m.attr("built_with_cuda") = false;
#endif
  bind_gpu_only(m);
  m.def("gpu_info", &gpu_info, py::arg("index"));
  m.def("emulate_gemm_cuda", &emulate_gemm_cuda, py::arg("plan"), py::arg("weight"), py::arg("activations"),
        py::arg("bias"), py::arg("seed"), py::arg("deterministic"), py::arg("scheme"), py::arg("workspace"),
        py::arg("rows") = py::none());
}

}  // namespace qf::bindings
