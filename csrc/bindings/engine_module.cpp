// _engine: the transformer on LibTorch. Checks arrays, releases the GIL, calls, returns. `_core` must be imported
// first: it owns the types that both modules use (SfuTables).
#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include <atomic>
#include <memory>
#include <optional>
#include <utility>

#include "bindings/arrays.h"
#include "bindings/engine_inputs.h"
#include "engine/cpu_backend.h"
#include "engine/session.h"
#include "numerics/special_function_unit.h"
#include "operators/attention_splits.h"

#ifdef QF_WITH_CUDA
#include "base/cuda/gpu.h"
#include "engine/cuda/cuda_backend.h"
#endif

namespace qf::bindings {
namespace {

std::unique_ptr<Backend> make_backend(const std::string& executor, const OperatorSet& operators, const std::string& isa,
                                      int threads) {
  if (executor == "cpu") return std::make_unique<CpuBackend>(operators, parse_isa(isa), threads);
  const bool native = executor == "native";
  require(native || executor == "cuda", "unknown executor '", executor, "'; one of: cpu, cuda, native");
#ifdef QF_WITH_CUDA
  return make_cuda_backend(operators, native);
#else
  throw Error("this build of qforensics has no CUDA code: build it where nvcc 12.8 or newer is on PATH (QF_CUDA=ON)");
#endif
}

/// Where memory ran out on the GPU, an allocation's or a launch's, the sentence begins with what is free.
std::string with_memory(const std::string& text) {
#ifdef QF_WITH_CUDA
  for (const char* sign : {"CUDA out of memory", "CUDA error: out of memory", "cudaErrorMemoryAllocation"}) {
    if (text.find(sign) != std::string::npos) return "out of GPU memory (" + cuda::memory_text() + "): " + text;
  }
#endif
  return text;
}

/// Our errors, and torch's without their stack of C++ frames.
void translate(std::exception_ptr thrown, const py::object& error_class) {
  try {
    std::rethrow_exception(std::move(thrown));
  } catch (const Error& error) {
    py::set_error(error_class, with_memory(error.what()).c_str());
  } catch (const c10::Error& error) {
    const std::string text = error.what_without_backtrace();
    py::set_error(error_class, with_memory(text.substr(0, text.find("\nException raised from"))).c_str());
  }
}

/// Collects weights, then becomes a model. Owns the backend; the special-function tables belong to Python.
class Engine {
 public:
  Engine(const py::dict& config, const std::string& dtype, OperatorSet operators, const std::string& executor,
         const std::string& isa, int threads, const DeviceNumbers& device, bool deterministic, const SfuTables* special)
      : config_(parse_config(config)),
        dtype_(parse_dtype(dtype)),
        operators_(std::move(operators)),
        executor_(executor),
        special_(special != nullptr ? special->view() : SfuView{}),
        backend_(make_backend(executor, operators_, isa, threads)),
        machine_{backend_.get(), device, deterministic, 0} {
    require(special != nullptr || operators_.profile == "fp32", "profile ", operators_.profile,
            " needs the tables of the special-function unit");
    backend_->set_special(special_);
    weights_.layers.resize(static_cast<size_t>(config_.layers));
  }

  void set_tensor(const std::string& name, int64_t layer, const py::array& array) {
    require_unfinished();
    at::Tensor tensor = backend_->here(copy_array(name, array, dtype_));
    if (name == "final_norm") return void(weights_.final_norm = std::move(tensor));
    if (name == "embedding") return void(weights_.embedding = std::move(tensor));
    if (name == "rotary_cache") return void(weights_.rotary_cache = std::move(tensor));
    LayerWeights& target = at_layer(layer);
    if (name == "input_norm") return void(target.input_norm = std::move(tensor));
    if (name == "post_attention_norm") return void(target.post_attention_norm = std::move(tensor));
    if (name == "q_norm") return void(target.q_norm = std::move(tensor));
    if (name == "k_norm") return void(target.k_norm = std::move(tensor));
    throw Error("unknown tensor '" + name + "'");
  }

  /// Takes the weight out of its Python object, which is left empty: a copy would double the largest layer's memory.
  void set_linear(const std::string& name, int64_t layer, const std::string& kernel, const KernelOptions& options,
                  PackedWeight& weight, const std::optional<py::array>& bias) {
    require_unfinished();
    at::Tensor bias_tensor;
    if (bias) bias_tensor = backend_->here(copy_array(name + ".bias", *bias, dtype_));
    auto linear =
        std::make_unique<Linear>(*backend_, kernel, options, std::exchange(weight, {}), std::move(bias_tensor));
    if (name == "lm_head") return void(weights_.lm_head = std::move(linear));
    LayerWeights& target = at_layer(layer);
    if (name == "qkv_proj") return void(target.qkv = std::move(linear));
    if (name == "o_proj") return void(target.o = std::move(linear));
    if (name == "gate_up_proj") return void(target.gate_up = std::move(linear));
    if (name == "down_proj") return void(target.down = std::move(linear));
    throw Error("unknown linear layer '" + name + "'");
  }

  void finish() {
    require_unfinished();
    model_ = std::make_unique<Transformer>(config_, dtype_, operators_, machine_, std::move(weights_));
    backend_->loaded();
  }

  /// Whether a sequence of this many keys may be split, for which these tables lack lg2.
  bool lacks_lg2(int64_t keys) const {
    return !special_.has_lg2() && keys > whole_keys(operators_.attention.name, config_.head_size);
  }
  void set_special(const SfuTables& special) {
    special_ = special.view();
    backend_->set_special(special_);
  }

  const Backend& backend() const { return *backend_; }
  const std::string& executor() const { return executor_; }
  Transformer& model() const {
    require(model_ != nullptr, "the engine is not finished: weights are still missing");
    return *model_;
  }

  py::dict run(const std::vector<py::dict>& requests, int64_t top_k, uint64_t seed,
               const std::optional<py::function>& progress, const std::optional<int64_t>& max_rows);

 private:
  /// A model runs one call at a time: its caches, counters and threads are its own.
  class Running {
   public:
    explicit Running(std::atomic<bool>& flag) : flag_(flag) {
      require(!flag_.exchange(true), "this model is running already: one call at a time (load it twice for two)");
    }
    ~Running() { flag_ = false; }
    Running(const Running&) = delete;
    Running& operator=(const Running&) = delete;

   private:
    std::atomic<bool>& flag_;
  };

  void require_unfinished() const { require(model_ == nullptr, "the engine is finished: its weights are fixed"); }
  LayerWeights& at_layer(int64_t layer) {
    require(layer >= 0 && layer < config_.layers, "layer ", layer, ": the model has ", config_.layers);
    return weights_.layers[static_cast<size_t>(layer)];
  }

  ModelConfig config_;
  DType dtype_;
  OperatorSet operators_;
  std::string executor_;
  SfuView special_;
  std::unique_ptr<Backend> backend_;
  Machine machine_;
  ModelWeights weights_;
  std::unique_ptr<Transformer> model_;
  std::atomic<bool> running_ = false;
};

py::dict Engine::run(const std::vector<py::dict>& requests, int64_t top_k, uint64_t seed,
                     const std::optional<py::function>& progress, const std::optional<int64_t>& max_rows) {
  require(top_k >= 1 && top_k <= config_.vocabulary, "top_k must be between 1 and ", config_.vocabulary, ", got ",
          top_k);
  std::vector<SequenceRequest> sequences;
  sequences.reserve(requests.size());
  for (const py::dict& request : requests) sequences.push_back(parse_request(request));
  const Progress report = [&](int64_t done, int64_t total) {
    py::gil_scoped_acquire acquire;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    if (progress) (*progress)(done, total);
  };
  SessionResult result;
  const Running running(running_);
  {
    py::gil_scoped_release release;
    backend_->enter();
    model().reseed(seed);
    SessionOptions options{top_k};
    if (max_rows) options.max_rows = *max_rows;
    result = run_session(model(), sequences, options, report);
  }
  py::list steps, out;
  for (const StepRecord& step : result.steps)
    steps.append(py::make_tuple(step.prefill ? "prefill" : "decode", step.rows));
  for (const SequenceResult& sequence : result.sequences) {
    py::dict item;
    item["generated"] =
        py::array_t<int64_t>(static_cast<py::ssize_t>(sequence.generated.size()), sequence.generated.data());
    item["prefill"] = rows_dict(sequence.prefill);
    item["decode"] = rows_dict(sequence.decode);
    out.append(item);
  }
  py::dict answer;
  answer["sequences"] = out;
  answer["steps"] = steps;
  for (const bool prefill : {true, false}) {
    const PathNotes& notes = prefill ? result.prefill_notes : result.decode_notes;
    py::dict item;
    item["unconfirmed"] = notes.unconfirmed;
    item["racing"] = notes.racing;
    answer[prefill ? "prefill_notes" : "decode_notes"] = item;
  }
  return answer;
}

/// Per kind of linear layer and number of rows: the kernel that ran, in words.
py::dict kernels_of(const Engine& engine) {
  py::dict out;
  for (const auto& [name, linear] : engine.model().linear_kinds()) {
    py::dict by_rows;
    for (const auto& [rows, plan] : linear->plans()) by_rows[py::int_(rows)] = plan.kernel;
    out[name.c_str()] = by_rows;
  }
  return out;
}

/// What ran the plans: {"name"}, and on a GPU {"gpu", "schemes": {kernel: what took its plans}, "layers": {kind: {rows:
/// the same}}}.
py::dict executor_of(const Engine& engine) {
  const Backend& backend = engine.backend();
  py::dict out;
  out["name"] = engine.executor();
  if (backend.gpu().empty()) return out;
  using Names = std::set<std::string>;
  std::map<std::string, Names> schemes;
  std::map<std::string, std::map<int64_t, Names>> layers;
  for (const auto& [name, linear] : engine.model().all_linears()) {
    for (const auto& [rows, names] : linear->weight().ran()) {
      schemes[linear->plans().at(rows).kernel].insert(names.begin(), names.end());
      layers[name][rows].insert(names.begin(), names.end());
    }
  }
  out["gpu"] = backend.gpu();
  out["schemes"] = schemes;
  out["layers"] = layers;
  return out;
}

}  // namespace
}  // namespace qf::bindings

PYBIND11_MODULE(_engine, m) {
  namespace py = pybind11;
  using qf::bindings::Engine;
  m.doc() = "qforensics engine: the transformer on LibTorch";
  const py::exception<qf::Error> error_class(m, "EngineError", PyExc_ValueError);
  py::register_local_exception_translator([](std::exception_ptr thrown) {
    qf::bindings::translate(std::move(thrown), py::module_::import("qforensics._engine").attr("EngineError"));
  });
  py::class_<Engine>(m, "Engine")
      .def(py::init([](const py::dict& config, const std::string& dtype, const std::string& profile, int compute_major,
                       const std::string& executor, const std::string& isa, int threads,
                       const qf::DeviceNumbers& device, bool deterministic, const qf::SfuTables* special) {
             return std::make_unique<Engine>(config, dtype, qf::operator_set(profile, compute_major), executor, isa,
                                             threads, device, deterministic, special);
           }),
           py::kw_only(), py::arg("config"), py::arg("dtype"), py::arg("profile"), py::arg("compute_major"),
           py::arg("executor"), py::arg("isa"), py::arg("threads"), py::arg("device"), py::arg("deterministic"),
           py::arg("special").none(true), py::keep_alive<1, 11>())
      .def("set_tensor", &Engine::set_tensor, py::arg("name"), py::arg("layer"), py::arg("array"))
      .def("set_linear", &Engine::set_linear, py::arg("name"), py::arg("layer"), py::arg("kernel"), py::arg("options"),
           py::arg("weight"), py::arg("bias"))
      .def("finish", &Engine::finish)
      .def("lacks_lg2", &Engine::lacks_lg2, py::arg("keys"))
      .def("set_special", &Engine::set_special, py::arg("special"), py::keep_alive<1, 2>())
      .def("run", &Engine::run, py::arg("requests"), py::arg("top_k"), py::arg("seed"),
           py::arg("progress") = py::none(), py::arg("max_num_batched_tokens") = py::none())
      .def(
          "set_recording", [](Engine& engine, bool on) { engine.model().set_recording(on); }, py::arg("on"))
      .def("kernels", &qf::bindings::kernels_of)
      .def("executor", &qf::bindings::executor_of);
}
