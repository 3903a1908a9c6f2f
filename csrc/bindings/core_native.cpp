// Native kernels over NumPy arrays (tests and benchmarks; the engine passes tensors). A build without CUDA has the same
// names; they say that it is one.
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>

#include "bindings/arrays.h"
#include "bindings/core_topics.h"
#include "bindings/kernel_arrays.h"
#include "kernels/pack/packed_weight.h"

#ifdef QF_WITH_CUDA
#include "base/cuda/gpu.h"
#include "base/cuda/stopwatch.h"
#include "kernels/native/native_kernels.h"
#endif

namespace qf::bindings {
namespace {

#ifdef QF_WITH_CUDA

/// One plan on the first GPU, with as many copies of the weight as the caller wants to rotate.
struct NativeJob {
  const cuda::Allocator& allocator = cuda::runtime_allocator();
  cuda::Gpu gpu = cuda::require_gpu(0);
  const cuda::NativeKernel& kernel;
  std::unique_ptr<cuda::NativeCall> call;
  std::vector<cuda::NativeWeight> weights;
  cuda::Buffer<char> activations, bias, out, zeroed, free;

  NativeJob(const Plan& plan, const PackedWeight& weight, int copies)
      : kernel(cuda::require_native_kernel(plan, gpu.compute_capability)),
        call(kernel.prepare(plan, gpu, allocator, nullptr)) {
    const cuda::DeviceWeight plain = cuda::upload_weight(weight, allocator, nullptr);
    for (int i = 0; i < copies; ++i) weights.push_back(kernel.pack(plan, plain, allocator, nullptr));
    const cuda::NativeScratch scratch = call->scratch();
    const std::vector<char> zeros(scratch.zeroed, 0);
    zeroed = cuda::upload(allocator, zeros.data(), zeros.size(), nullptr);
    free = cuda::Buffer<char>(allocator, scratch.free, nullptr);
  }

  void operands(const Plan& plan, const void* x, const void* addend, size_t out_bytes) {
    const auto rows = static_cast<size_t>(plan.m * plan.k), columns = static_cast<size_t>(plan.n);
    activations = cuda::upload(allocator, static_cast<const char*>(x), rows * 2, nullptr);
    if (addend != nullptr) bias = cuda::upload(allocator, static_cast<const char*>(addend), columns * 2, nullptr);
    out = cuda::Buffer<char>(allocator, out_bytes, nullptr);
  }

  void run(const Plan& plan, size_t copy, void* stream, uint64_t seed, bool deterministic) const {
    const GemmArgs args{activations.data(), plan.k, bias.data(), out.data(), plan.n, 0, plan.m};
    call->run(weights[copy], args, {stream, zeroed.data(), free.data(), deterministic, seed});
  }
};

py::array emulate_gemm_native(const Plan& plan, const PackedWeight& weight, const py::array& activations,
                              const std::optional<py::array>& bias, uint64_t seed, bool deterministic) {
  check_gemm_arrays(plan, activations, bias);
  require(plan.epilogue.output != Format::fp32, plan.kernel, ": native kernels write fp16 or bf16");
  py::array out = new_output(plan, plan.m);
  void* host_out = out.mutable_data();
  const void *x = activations.data(), *addend = bias ? bias->data() : nullptr;
  const auto bytes = static_cast<size_t>(out.nbytes());
  py::gil_scoped_release release;
  NativeJob job(plan, weight, 1);
  job.operands(plan, x, addend, bytes);
  job.run(plan, 0, nullptr, seed, deterministic);
  cuda::copy_to_host(host_out, job.out.data(), bytes, nullptr);
  return out;
}

/// Microseconds of one call, of each of `repeats` replays of a CUDA graph that runs the kernel once per copy of the
/// weight: with copies beyond the cache the weights come from memory.
std::vector<float> time_gemm_native(const Plan& plan, const PackedWeight& weight, const py::array& activations,
                                    int copies, int repeats, bool deterministic) {
  check_gemm_arrays(plan, activations, std::nullopt);
  require(copies >= 1 && repeats >= 1, "copies and repeats: at least 1");
  const void* x = activations.data();
  py::gil_scoped_release release;
  cuda::keep_freed_memory();
  NativeJob job(plan, weight, copies);
  job.operands(plan, x, nullptr, static_cast<size_t>(plan.m * plan.n * 2));
  std::vector<float> times = cuda::time_graph(repeats, [&](void* stream) {
    for (int i = 0; i < copies; ++i) job.run(plan, static_cast<size_t>(i), stream, 0, deterministic);
  });
  for (float& time : times) time *= 1e3f / static_cast<float>(copies);
  return times;
}

/// The kernel that serves the plan on a GPU of this compute capability, and why where there is none.
py::tuple native_kernel_for(const Plan& plan, int compute_capability) {
  std::string why;
  const cuda::NativeKernel* kernel = cuda::find_native_kernel(plan, compute_capability, &why);
  return py::make_tuple(kernel == nullptr ? py::object(py::none()) : py::object(py::str(kernel->name)), why);
}

py::list native_kernel_table() {
  py::list out;
  for (const cuda::NativeKernel& kernel : cuda::native_kernels()) {
    out.append(py::make_tuple(kernel.name, kernel.least_capability, kernel.summary));
  }
  return out;
}

#else

[[noreturn]] void refuse() {
  throw Error("this build of qforensics has no CUDA code: build it where nvcc 12.8 or newer is on PATH (QF_CUDA=ON)");
}
py::array emulate_gemm_native(const Plan&, const PackedWeight&, const py::array&, const std::optional<py::array>&,
                              uint64_t, bool) {
  refuse();
}
std::vector<float> time_gemm_native(const Plan&, const PackedWeight&, const py::array&, int, int, bool) { refuse(); }
py::tuple native_kernel_for(const Plan&, int) { refuse(); }
py::list native_kernel_table() { return py::list(); }

#endif

}  // namespace

void bind_native(py::module_& m) {
  m.def("native_kernel_table", &native_kernel_table);
  m.def("native_kernel_for", &native_kernel_for, py::arg("plan"), py::arg("compute_capability"));
  m.def("emulate_gemm_native", &emulate_gemm_native, py::arg("plan"), py::arg("weight"), py::arg("activations"),
        py::arg("bias"), py::arg("seed"), py::arg("deterministic"));
  m.def("time_gemm_native", &time_gemm_native, py::arg("plan"), py::arg("weight"), py::arg("activations"),
        py::arg("copies"), py::arg("repeats"), py::arg("deterministic"));
}

}  // namespace qf::bindings
