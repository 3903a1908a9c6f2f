// The GPU of this machine, and executors that run on it over NumPy arrays (tests and benchmarks; the engine passes tensors).
// A build without CUDA has the same names; they say that it is one.
#include <pybind11/stl.h>

#include <optional>

#include "bindings/arrays.h"
#include "bindings/core_topics.h"
#include "bindings/kernel_arrays.h"

#ifdef QF_WITH_CUDA
#include "base/cuda/gpu.h"
#include "kernels/emulate/cuda/emulate_gemm_cuda.h"
#endif

namespace qf::bindings {
namespace {

#ifdef QF_WITH_CUDA

cuda::Scheme parse_scheme(const std::string& name) {
  for (const cuda::Scheme scheme : {cuda::Scheme::native, cuda::Scheme::pinned, cuda::Scheme::definition}) {
    if (name == cuda::scheme_name(scheme)) return scheme;
  }
  throw Error("unknown scheme '" + name + "'; one of: native, pinned, definition");
}

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

py::array emulate_gemm_cuda(const Plan& plan, const PackedWeight& weight, const py::array& activations,
                            const std::optional<py::array>& bias, uint64_t seed, bool deterministic,
                            const std::optional<std::string>& scheme, size_t workspace) {
  check_gemm_arrays(plan, activations, bias);
  py::array out = new_output(plan);
  void* host_out = out.mutable_data();
  const void *host_in = activations.data(), *host_bias = bias ? bias->data() : nullptr;
  const size_t in_bytes = static_cast<size_t>(activations.nbytes()), out_bytes = static_cast<size_t>(out.nbytes());
  const size_t bias_bytes = bias ? static_cast<size_t>(bias->nbytes()) : 0;
  py::gil_scoped_release release;
  const cuda::OwnUnit own = cuda::own_unit(cuda::require_gpu(0).compute_capability);
  const cuda::Allocator& allocator = cuda::runtime_allocator();
  const cuda::DeviceWeight device_weight = cuda::upload_weight(weight, allocator, nullptr);
  const cuda::DevicePlan device_plan = cuda::make_device_plan(plan, allocator, nullptr, workspace);
  const auto bytes = [&](const void* from, size_t count) {
    return cuda::upload(allocator, static_cast<const char*>(from), count, nullptr);
  };
  const auto in = bytes(host_in, in_bytes), addend = bytes(host_bias, bias_bytes);
  const cuda::Buffer<char> result(allocator, out_bytes, nullptr);
  const GemmArgs args{in.data(), plan.k, addend.data(), result.data(), plan.n};
  const cuda::DeviceContext context{&allocator, nullptr, own, seed, deterministic};
  cuda::emulate_gemm(device_plan, device_weight, args, context,
                     scheme ? parse_scheme(*scheme) : cuda::plan_scheme(plan, own));
  cuda::copy_to_host(host_out, result.data(), out_bytes, nullptr);
  return out;
}

#else

[[noreturn]] void refuse() {
  throw Error("this build of qforensics has no CUDA code: build it where nvcc 12.8 or newer is on PATH (QF_CUDA=ON)");
}
py::dict gpu_info(int) { refuse(); }
py::array emulate_gemm_cuda(const Plan&, const PackedWeight&, const py::array&, const std::optional<py::array>&, uint64_t,
                            bool, const std::optional<std::string>&, size_t) {
  refuse();
}

#endif

}  // namespace

void bind_cuda(py::module_& m) {
#ifdef QF_WITH_CUDA
  m.attr("built_with_cuda") = true;
  m.attr("default_workspace") = cuda::kWorkspace;
  m.def("gpu_count", &cuda::gpu_count);
  m.def("why_no_gpu", &cuda::why_no_gpu);
#else
  m.attr("built_with_cuda") = false;
  m.attr("default_workspace") = size_t{1} << 30;
  m.def("gpu_count", [] { return 0; });
  m.def("why_no_gpu", [] { return std::string("this build has no CUDA code"); });
#endif
  m.def("gpu_info", &gpu_info, py::arg("index"));
  m.def("emulate_gemm_cuda", &emulate_gemm_cuda, py::arg("plan"), py::arg("weight"), py::arg("activations"),
        py::arg("bias"), py::arg("seed"), py::arg("deterministic"), py::arg("scheme"), py::arg("workspace"));
}

}  // namespace qf::bindings
