// Operators on the GPU of this machine over NumPy arrays (tests and benchmarks; the engine passes tensors).
#include <pybind11/stl.h>

#include <optional>

#include "bindings/core_topics.h"
#include "bindings/operator_calls.h"

#ifdef QF_WITH_CUDA
#include "base/cuda/gpu.h"
#include "base/cuda/stopwatch.h"
#include "operators/cuda/attention_scheme.h"
#include "operators/cuda/device_operator_set.h"
#include "operators/cuda/logprobs_torch.h"
#endif

namespace qf::bindings {
namespace {

#ifdef QF_WITH_CUDA

/// The device's OperatorRuntime: arrays are uploaded for a call, results come back after it.
class DeviceRuntime {
 public:
  DeviceRuntime(const std::string& profile, int compute_major, const SfuTables* tables, bool own_sfu, int timed)
      : own_(cuda::own_unit(cuda::require_gpu(0).compute_capability)),
        set_(operator_set(profile, compute_major)),
        device_set_(cuda::device_operator_set(set_)),
        faults_(memory(), nullptr),
        timed_(timed) {
    require(timed >= 0, "timed: expected 0 or more calls, found ", timed);
    const auto own = own_sfu ? cuda::OwnSfu::when_equal : cuda::OwnSfu::never;
    if (tables != nullptr) sfu_.emplace(tables->view(), own, memory(), nullptr);
  }

  void choose(const std::string& name, const std::string& definition) {
    choose_definition(set_, name, definition);
    device_set_ = cuda::device_operator_set(set_);
  }
  const cuda::DeviceOperatorSet& set() const { return device_set_; }
  bool own_sfu() const { return sfu_ && sfu_->own_is_equal(); }
  const std::vector<float>& milliseconds() const { return milliseconds_; }
  cuda::DeviceOperatorContext context() const { return {&memory(), nullptr, sfu_ ? &*sfu_ : nullptr, &faults_, own_}; }

  const void* in(const py::array& array) { return upload(array); }
  void* out(py::array& array) {
    char* data = reserve(array.nbytes());
    results_.push_back({array.mutable_data(), data, static_cast<size_t>(array.nbytes())});
    return data;
  }
  void* inout(py::array& array) {
    char* data = upload(array);
    results_.push_back({array.mutable_data(), data, static_cast<size_t>(array.nbytes())});
    return data;
  }

  /// Runs once, or, where times are asked for, as time_calls does: always over the same arrays.
  template <class Args>
  void run(const cuda::DeviceDefinition<Args>& definition, const Args& args) {
    run(definition, args, context());
  }
  template <class Args>
  void run(const cuda::DeviceDefinition<Args>& definition, const Args& args,
           const cuda::DeviceOperatorContext& context) {
    run([&] {
      require_tables(context.sfu != nullptr, definition.name);
      definition(context, args);
    });
  }
  template <class Call>
  void run(const Call& call) {
    // arrays of this call leave the device with it, also when it fails
    const std::vector<cuda::Buffer<char>> buffers = std::move(buffers_);
    const std::vector<Result> results = std::move(results_);
    buffers_.clear();
    results_.clear();
    py::gil_scoped_release release;
    if (timed_ == 0) {
      call();
    } else {
      milliseconds_ = cuda::time_calls(timed_, nullptr, call);
    }
    faults_.check();
    for (const Result& result : results) cuda::copy_to_host(result.host, result.device, result.bytes, nullptr);
  }

 private:
  struct Result {
    void* host;
    const void* device;
    size_t bytes;
  };
  static const cuda::Allocator& memory() { return cuda::runtime_allocator(); }
  char* reserve(py::ssize_t bytes) {
    try {
      buffers_.emplace_back(memory(), static_cast<size_t>(bytes), nullptr);
    } catch (const Error&) {  // the call ends here: forget its arrays
      buffers_.clear();
      results_.clear();
      throw;
    }
    return buffers_.back().data();
  }
  char* upload(const py::array& array) {
    char* data = reserve(array.nbytes());
    cuda::copy_to_device(data, array.data(), static_cast<size_t>(array.nbytes()), nullptr);
    return data;
  }

  cuda::OwnUnit own_;
  OperatorSet set_;
  cuda::DeviceOperatorSet device_set_;
  std::optional<cuda::DeviceSfu> sfu_;
  cuda::Faults faults_;
  int timed_;
  std::vector<float> milliseconds_;
  std::vector<cuda::Buffer<char>> buffers_;
  std::vector<Result> results_;
};

py::list attention(DeviceRuntime& runtime, const std::string& dtype_text, const std::vector<py::array>& q,
                   const std::vector<py::array>& k, const std::vector<py::array>& v, float scale, int64_t sm_count,
                   int products, int fraction_bits, int zero_exponent, const std::optional<std::string>& scheme,
                   const std::optional<size_t>& workspace) {
  cuda::DeviceOperatorContext context = runtime.context();
  if (scheme) context.scheme = cuda::parse_scheme(*scheme);
  context.workspace = workspace.value_or(context.workspace);
  const AttentionCall call = attention_call(runtime, dtype_text, q, k, v, scale, sm_count,
                                            {products, fraction_bits, Rounding::fp32_toward_zero, zero_exponent, 0});
  runtime.run(runtime.set().attention, call.args(), context);
  return call.outputs;
}

std::string attention_scheme_name(int products, int fraction_bits, int compute_capability) {
  const MatrixUnit unit{products, fraction_bits, Rounding::fp32_toward_zero, 0, 0};
  return cuda::scheme_name(cuda::attention_scheme(unit, cuda::own_unit(compute_capability)));
}

/// log_softmax torch and top_k without the logprobs between them, and those of (row, id) pairs.
py::tuple top_logprobs(DeviceRuntime& runtime, const std::string& dtype_text, const py::array& logits, int64_t k,
                       const Array<int32_t>& rows, const Array<int32_t>& ids) {
  const DType dtype = parse_dtype(dtype_text);
  checked(logits, dtype, {-1, -1}, "logits");
  require_shape(rows, {-1}, "rows");
  require_shape(ids, {rows.shape(0)}, "ids");
  const py::ssize_t count = logits.shape(0), columns = logits.shape(1);
  for (py::ssize_t i = 0; i < rows.shape(0); ++i) {
    require(rows.at(i) >= 0 && rows.at(i) < count && ids.at(i) >= 0 && ids.at(i) < columns, "pair ", i, ": row ",
            rows.at(i), ", id ", ids.at(i), " is outside logits of ", shape_text(logits));
  }
  check_top(k, columns);
  Array<int32_t> top_ids({count, static_cast<py::ssize_t>(k)});
  Array<float> values({count, static_cast<py::ssize_t>(k)}), totals({count, py::ssize_t{2}}), picked(rows.shape(0));
  const cuda::TopLogprobsArgs top{dtype,
                                  runtime.in(logits),
                                  count,
                                  columns,
                                  columns,
                                  k,
                                  static_cast<int32_t*>(runtime.out(top_ids)),
                                  static_cast<float*>(runtime.out(values)),
                                  static_cast<float*>(runtime.out(totals))};
  const cuda::GatherLogprobsArgs gather{dtype,
                                        top.logits,
                                        top.totals,
                                        columns,
                                        columns,
                                        static_cast<const int32_t*>(runtime.in(rows)),
                                        static_cast<const int32_t*>(runtime.in(ids)),
                                        static_cast<float*>(runtime.out(picked)),
                                        rows.shape(0)};
  runtime.run([&] {
    require_tables(runtime.context().sfu != nullptr, "torch");
    cuda::top_logprobs_torch(runtime.context(), top);
    cuda::gather_logprobs_torch(runtime.context(), gather);
  });
  return py::make_tuple(top_ids, values, picked);
}

#endif

}  // namespace

void bind_cuda_operators([[maybe_unused]] py::module_& m) {
#ifdef QF_WITH_CUDA
  py::class_<DeviceRuntime> runtime(m, "DeviceOperatorRuntime",
                                    "The operators of an engine profile on this machine's GPU.");
  runtime
      .def(py::init<const std::string&, int, const SfuTables*, bool, int>(), py::arg("profile"),
           py::arg("compute_major"), py::arg("tables").none(true), py::arg("own_sfu"), py::arg("timed") = 0)
      .def("choose", &DeviceRuntime::choose, py::arg("operator"), py::arg("definition"))
      .def_property_readonly("own_sfu", &DeviceRuntime::own_sfu,
                             "The GPU's own special-function unit was asked for and equals the tables everywhere.")
      .def_property_readonly("milliseconds", &DeviceRuntime::milliseconds,
                             "Of every timed repetition of the last call.")
      .def("attention", &attention, py::arg("dtype"), py::arg("q"), py::arg("k"), py::arg("v"), py::arg("scale"),
           py::arg("sm_count"), py::arg("products"), py::arg("fraction_bits"), py::arg("zero_exponent"),
           py::arg("scheme") = py::none(), py::arg("workspace") = py::none())
      .def("top_logprobs", &top_logprobs);
  bind_operator_calls(runtime);
  m.def("attention_scheme", &attention_scheme_name, py::arg("products"), py::arg("fraction_bits"),
        py::arg("compute_capability"));
#endif
}

}  // namespace qf::bindings
