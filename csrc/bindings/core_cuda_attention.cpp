// Attention on the GPU of this machine over NumPy arrays: fp16 and bf16 as their bits (uint16), fp32 as float32.
#include <pybind11/stl.h>

#include <optional>

#include "bindings/arrays.h"
#include "bindings/core_topics.h"
#include "operators/operator_set.h"

#ifdef QF_WITH_CUDA
#include <chrono>

#include "base/cuda/gpu.h"
#include "operators/cuda/attention.h"
#include "operators/cuda/device_sfu.h"
#endif

namespace qf::bindings {
namespace {

using Arrays = std::vector<py::array>;

#ifdef QF_WITH_CUDA

cuda::Scheme parse_scheme(const std::string& name) {
  for (const cuda::Scheme scheme : {cuda::Scheme::native, cuda::Scheme::pinned, cuda::Scheme::definition}) {
    if (name == cuda::scheme_name(scheme)) return scheme;
  }
  throw Error("unknown scheme '" + name + "'; one of: native, pinned, definition");
}

void check_array(const py::array& array, DType dtype, const std::vector<py::ssize_t>& shape, const char* name) {
  const bool fits = dtype == DType::fp32 ? py::isinstance<Array<float>>(array) : py::isinstance<Array<uint16_t>>(array);
  require(fits, name, ": expected a contiguous array of ", dtype == DType::fp32 ? "float32" : "uint16");
  require_shape(array, shape, name);
}

/// The arrays of a call on the device.
struct DeviceCall {
  std::vector<cuda::Buffer<char>> buffers;
  std::vector<AttentionSequence> sequences;
  std::vector<void*> host_out;
  std::vector<size_t> out_bytes;
  AttentionArgs args{};

  void add(const py::array& q, const py::array& k, const py::array& v, py::array& out) {
    const auto copy = [&](const py::array& from) {
      buffers.push_back(cuda::upload(cuda::runtime_allocator(), static_cast<const char*>(from.data()),
                                     static_cast<size_t>(from.nbytes()), nullptr));
      return buffers.back().data();
    };
    const void *dq = copy(q), *dk = copy(k), *dv = copy(v);
    out_bytes.push_back(static_cast<size_t>(out.nbytes()));
    buffers.emplace_back(cuda::runtime_allocator(), out_bytes.back(), nullptr);
    host_out.push_back(out.mutable_data());
    sequences.push_back({dq, dk, dv, buffers.back().data(), q.shape(0), k.shape(0)});
  }
  void wait() const {
    char byte;
    cuda::copy_to_host(&byte, buffers.front().data(), 1, nullptr);
  }
  void fetch() const {
    for (size_t i = 0; i < sequences.size(); ++i)
      cuda::copy_to_host(host_out[i], sequences[i].out, out_bytes[i], nullptr);
  }
};

void run_definition(const std::string& definition, const cuda::AttentionContext& context, const AttentionArgs& args) {
  if (definition == "fa3") return cuda::attention_fa3(context, args);
  if (definition == "fa2") return cuda::attention_fa2(context, args);
  require(definition == "fp32", "unknown definition '", definition, "'; one of: fa3, fa2, fp32");
  cuda::attention_fp32(context, args);
}

/// Returns the outputs and the seconds of each repeated call.
py::tuple attention_cuda(const std::string& definition, const SfuTables* tables, const std::string& dtype_text,
                         const Arrays& q, const Arrays& k, const Arrays& v, float scale, int64_t sm_count, int products,
                         int fraction_bits, int zero_exponent, const std::optional<std::string>& scheme,
                         size_t workspace, int repeats) {
  const DType dtype = parse_dtype(dtype_text);
  require(!q.empty() && q.size() == k.size() && q.size() == v.size(), "q, k, v: one array per sequence each");
  check_array(q[0], dtype, {-1, -1, -1}, "q");
  check_array(k[0], dtype, {-1, -1, -1}, "k");
  require(tables != nullptr || definition == "fp32", "this definition needs the special-function tables");
  const cuda::OwnUnit own = cuda::own_unit(cuda::require_gpu(0).compute_capability);
  const py::ssize_t heads = q[0].shape(1), kv_heads = k[0].shape(1), size = q[0].shape(2);
  DeviceCall call;
  py::list outputs;
  for (size_t i = 0; i < q.size(); ++i) {
    check_array(q[i], dtype, {-1, heads, size}, "q");
    check_array(k[i], dtype, {-1, kv_heads, size}, "k");
    check_array(v[i], dtype, {k[i].shape(0), kv_heads, size}, "v");
    const std::vector<py::ssize_t> shape{q[i].shape(0), heads, size};
    py::array out = dtype == DType::fp32 ? py::array(Array<float>(shape)) : py::array(Array<uint16_t>(shape));
    call.add(q[i], k[i], v[i], out);
    outputs.append(out);
  }
  const MatrixUnit unit{products, fraction_bits, Rounding::fp32_toward_zero, zero_exponent,
                        dtype == DType::fp16 ? -14 : -126};
  const AttentionArgs args{dtype,
                           call.sequences.data(),
                           static_cast<int64_t>(call.sequences.size()),
                           heads,
                           kv_heads,
                           size,
                           heads * size,
                           kv_heads * size,
                           kv_heads * size,
                           heads * size,
                           scale,
                           sm_count,
                           unit};
  cuda::AttentionContext context{&cuda::runtime_allocator(), nullptr, own, {}};
  if (scheme) context.scheme = parse_scheme(*scheme);
  context.workspace = workspace;
  std::vector<double> seconds;
  {
    const py::gil_scoped_release release;
    std::optional<cuda::DeviceSfu> sfu;
    if (tables != nullptr) {
      sfu.emplace(tables->view(), cuda::runtime_allocator(), nullptr);
      context.sfu = sfu->view();
    }
    call.wait();
    for (int i = 0; i < repeats; ++i) {
      const auto start = std::chrono::steady_clock::now();
      run_definition(definition, context, args);
      call.wait();
      seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    call.fetch();
  }
  return py::make_tuple(outputs, seconds);
}

std::string attention_scheme_name(int products, int fraction_bits, int compute_capability) {
  const MatrixUnit unit{products, fraction_bits, Rounding::fp32_toward_zero, 0, 0};
  return cuda::scheme_name(cuda::attention_scheme(unit, cuda::own_unit(compute_capability)));
}

#else

[[noreturn]] void refuse() {
  throw Error("this build of qforensics has no CUDA code: build it where nvcc 12.8 or newer is on PATH (QF_CUDA=ON)");
}
py::tuple attention_cuda(const std::string&, const SfuTables*, const std::string&, const Arrays&, const Arrays&,
                         const Arrays&, float, int64_t, int, int, int, const std::optional<std::string>&, size_t, int) {
  refuse();
}
std::string attention_scheme_name(int, int, int) { refuse(); }

#endif

}  // namespace

void bind_cuda_attention(py::module_& m) {
  m.def(
      "attention_definition",
      [](const std::string& profile, int compute_major) {
        return std::string(operator_set(profile, compute_major).attention.name);
      },
      py::arg("profile"), py::arg("compute_major"));
  m.def("attention_cuda", &attention_cuda, py::arg("definition"), py::arg("tables").none(true), py::arg("dtype"),
        py::arg("q"), py::arg("k"), py::arg("v"), py::arg("scale"), py::arg("sm_count"), py::arg("products"),
        py::arg("fraction_bits"), py::arg("zero_exponent"), py::arg("scheme") = py::none(),
        py::arg("workspace") = size_t{256} << 20, py::arg("repeats") = 1);
  m.def("attention_scheme", &attention_scheme_name, py::arg("products"), py::arg("fraction_bits"),
        py::arg("compute_capability"));
}

}  // namespace qf::bindings
