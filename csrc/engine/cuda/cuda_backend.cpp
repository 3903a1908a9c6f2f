#include "engine/cuda/cuda_backend.h"

#include <algorithm>
#include <optional>

#include "base/cuda/gpu.h"
#include "base/cuda/graph.h"
#include "engine/cuda/cuda_weight.h"
#include "engine/cuda/step_memory.h"
#include "engine/cuda/torch_memory.h"
#include "operators/cuda/attention_steps.h"
#include "operators/cuda/cache_rows.h"
#include "operators/cuda/device_operator_set.h"
#include "operators/cuda/head_rows.h"
#include "operators/cuda/logprobs_torch.h"

namespace qf {
namespace {

/// The answer's numbers in one tensor, so that they come to the host in one copy.
struct AnswerMemory {
  int64_t top, single;  // entries
  at::Tensor words;     // [2 * top + single]: ids, values, single ones

  AnswerMemory(const Backend& backend, int64_t top_entries, int64_t single_entries)
      : top(top_entries),
        single(single_entries),
        words(backend.new_tensor(at::kInt, {2 * top_entries + single_entries})) {}

  int32_t* ids() const { return words.mutable_data_ptr<int32_t>(); }
  float* values() const { return static_cast<float*>(words.data_ptr()) + top; }
  float* singles() const { return values() + top; }

  LogprobAnswer fetch(void* stream) const {
    std::vector<uint32_t> host(static_cast<size_t>(2 * top + single));
    cuda::copy_to_host(host.data(), words.data_ptr(), host.size() * sizeof(uint32_t), stream);
    LogprobAnswer out;
    const auto middle = host.begin() + top;
    out.top_ids.assign(host.begin(), middle);
    const auto floats = [](auto begin, auto end, std::vector<float>& to) {
      std::transform(begin, end, std::back_inserter(to), [](uint32_t bits) { return bits_float(bits); });
    };
    floats(middle, middle + top, out.top_values);
    floats(middle + top, host.end(), out.single);
    return out;
  }
};

/// A graph and the memory that it works in.
class CudaRecording final : public Recording {
 public:
  CudaRecording(const CudaMachine& machine, std::shared_ptr<StepArena> memory, const std::function<void(void*)>& work)
      : machine_(machine), memory_(std::move(memory)), graph_(work) {}
  void replay() override { graph_.launch(machine_.stream); }

 private:
  const CudaMachine& machine_;
  std::shared_ptr<StepArena> memory_;
  cuda::Graph graph_;
};

class CudaBackend final : public Backend {
 public:
  CudaBackend(const OperatorSet& operators, bool native)
      : native_(native), operators_(cuda::device_operator_set(operators)) {
    require_torch_cuda();
    empty_cache();
    torch_ = torch_allocator();
    memory_ = std::make_unique<StepMemory>(torch_);
    machine_.gpu = cuda::require_gpu(0);
    machine_.own = cuda::own_unit(machine_.gpu.compute_capability);
    machine_.memory = memory_->allocator();
    machine_.stream = current_stream();
    faults_ = std::make_unique<cuda::Faults>(machine_.memory, machine_.stream);
  }

  at::Device device() const override { return at::Device(at::kCUDA, 0); }
  using Backend::new_tensor;
  at::Tensor new_tensor(at::ScalarType type, at::IntArrayRef shape) const override {
    const std::shared_ptr<StepArena> arena = memory_->arena();
    if (arena == nullptr) return Backend::new_tensor(type, shape);
    const size_t bytes = static_cast<size_t>(c10::multiply_integers(shape)) * at::elementSize(type);
    void* const memory = arena->allocate(bytes, machine_.stream);
    return at::from_blob(
        memory, shape, [arena](void* pointer) { arena->release(pointer); },
        at::TensorOptions().dtype(type).device(device()), device());
  }
  std::unique_ptr<Weight> take(PackedWeight weight) override {
    return std::make_unique<CudaWeight>(machine_, weight, native_);
  }
  void set_special(const SfuView& special) override {
    if (special.ex2_curve.pieces == nullptr) return;
    sfu_.emplace(special, cuda::OwnSfu::when_equal, machine_.memory, machine_.stream);
  }
  /// Half of what is free serves further forms of the weights; the rest is for the caches and activations of a run.
  void loaded() override {
    empty_cache();
    machine_.budget.left = cuda::free_memory() / 2;
  }
  void enter() override { machine_.stream = current_stream(); }

#define QF_OPERATOR(name, Args) \
  void run(const Args& args) override { operators_.name(context(), args); }
#define QF_DEFINITION(...)
#include "operators/operators.def"
#undef QF_DEFINITION
#undef QF_OPERATOR

  void store(const CacheRowsArgs& args) override { cuda::store_cache_rows(context(), args); }
  bool run_heads(const HeadCall& call) override {
    if (operators_.rotary.name != "vllm" || operators_.rms_norm.name != "vllm") return false;
    const auto rows = static_cast<size_t>(call.queries.tokens);
    const bool normed = !call.norms.empty(), one = call.stores.size() == 1;
    if (!one && (call.stores.size() != rows || rows > cuda::kCacheTargets)) return false;
    cuda::HeadRowsArgs args{.dtype = call.queries.dtype,
                            .qkv = call.queries.x,
                            .q_norm = normed ? call.norms[0].weight : nullptr,
                            .k_norm = normed ? call.norms[1].weight : nullptr,
                            .epsilon = normed ? call.norms[0].epsilon : 0.0f,
                            .positions = call.queries.positions,
                            .rotary_cache = call.queries.cache,
                            .rotary_rows = call.queries.cache_rows,
                            .rows = call.queries.tokens,
                            .heads = call.queries.heads,
                            .kv_heads = call.keys.heads,
                            .head_size = call.queries.head_size,
                            .one_target = one,
                            .targets = {}};
    for (size_t i = 0; i < call.stores.size(); ++i)
      args.targets[i] = {call.stores[i].to_keys, call.stores[i].to_values};
    if (!cuda::takes_head_rows(args)) return false;
    cuda::head_rows(context(), args);
    return true;
  }
  void write(const at::Tensor& to, const void* host) override {
    cuda::copy_to_device(to.data_ptr(), host, to.nbytes(), machine_.stream);
  }
  std::vector<int64_t> prepare_attention(const AttentionArgs& args) override {
    return cuda::place_attention(context(), operators_.attention.name, args);
  }
  std::unique_ptr<Recording> record(const std::function<void()>& work) override {
    const auto arena = std::make_shared<StepArena>(torch_, machine_.stream);
    try {
      return std::make_unique<CudaRecording>(machine_, arena, [&](void* stream) {
        const Elsewhere elsewhere(*this, arena, stream);
        work();
      });
    } catch (const Error&) {  // the work waits, or does another thing that is not recorded: it runs call by call
      return nullptr;
    }
  }

  LogprobAnswer logprobs(const at::Tensor& logits, const LogprobQuery& query) override {
    const AnswerMemory memory(*this, logits.size(0) * query.top_k, static_cast<int64_t>(query.ids.size()));
    if (operators_.log_softmax.name == "torch") {
      logprobs_torch(logits, query, memory);
    } else {
      logprobs_by_rows(logits, query, memory);
    }
    LogprobAnswer answer = memory.fetch(machine_.stream);
    faults_->check();
    return answer;
  }
  int64_t logits_rows(int64_t row_bytes) const override {
    constexpr int64_t kBlockBytes = 64 << 20, kTileRows = 32;
    return std::max(kTileRows, kBlockBytes / row_bytes / kTileRows * kTileRows);
  }
  std::unique_ptr<KeyValuePanels> new_panels(int64_t, int64_t) const override { return nullptr; }

  std::string gpu() const override { return machine_.gpu.name; }

 private:
  /// Work goes to this stream and takes its memory from the arena while this lives.
  class Elsewhere {
   public:
    Elsewhere(CudaBackend& backend, const std::shared_ptr<StepArena>& arena, void* stream)
        : backend_(backend), before_(backend.machine_.stream) {
      backend.machine_.stream = stream;
      backend.memory_->use(arena);
    }
    ~Elsewhere() {
      backend_.machine_.stream = before_;
      backend_.memory_->use(nullptr);
    }
    Elsewhere(const Elsewhere&) = delete;
    Elsewhere& operator=(const Elsewhere&) = delete;

   private:
    CudaBackend& backend_;
    void* before_;
  };
  cuda::DeviceOperatorContext context() const {
    cuda::DeviceOperatorContext out{&machine_.memory, machine_.stream, sfu_ ? &*sfu_ : nullptr, faults_.get(),
                                    machine_.own};
    out.tables = tables_.get();
    out.overlapped = machine_.gpu.compute_capability >= 90;
    return out;
  }
  at::Tensor upload_ids(const std::vector<int32_t>& ids) const { return here(at::tensor(ids, at::kInt)); }

  void logprobs_torch(const at::Tensor& logits, const LogprobQuery& query, const AnswerMemory& memory) {
    const int64_t rows = logits.size(0), columns = logits.size(1);
    const at::Tensor totals = new_tensor(at::kFloat, {rows, 2});
    cuda::top_logprobs_torch(context(), {query.dtype, logits.data_ptr(), rows, columns, logits.stride(0), query.top_k,
                                         memory.ids(), memory.values(), totals.mutable_data_ptr<float>()});
    if (memory.single == 0) return;
    const at::Tensor which = upload_ids(query.rows), ids = upload_ids(query.ids);
    cuda::gather_logprobs_torch(
        context(), {query.dtype, logits.data_ptr(), totals.const_data_ptr<float>(), columns, logits.stride(0),
                    which.const_data_ptr<int32_t>(), ids.const_data_ptr<int32_t>(), memory.singles(), memory.single});
  }

  /// Through the logprobs of whole rows, a few at a time.
  void logprobs_by_rows(const at::Tensor& logits, const LogprobQuery& query, const AnswerMemory& memory) {
    constexpr int64_t kRows = 64;
    const int64_t count = logits.size(0), columns = logits.size(1);
    const at::Tensor chunk = new_tensor(at::kFloat, {std::min(count, kRows), columns});
    auto* const values = chunk.mutable_data_ptr<float>();
    int64_t done = 0;
    for (int64_t first = 0; first < count; first += kRows) {
      const int64_t n = std::min(kRows, count - first);
      run(LogSoftmaxArgs{query.dtype, logits.narrow(0, first, n).data_ptr(), values, n, columns, logits.stride(0)});
      run(TopKArgs{values, n, columns, query.top_k, memory.ids() + first * query.top_k,
                   memory.values() + first * query.top_k});
      std::vector<int64_t> places;
      for (int64_t i = done; i < memory.single && query.rows[static_cast<size_t>(i)] < first + n; ++i) {
        const auto at = static_cast<size_t>(i);
        places.push_back((query.rows[at] - first) * columns + query.ids[at]);
      }
      if (places.empty()) continue;
      const at::Tensor picked = chunk.view({-1}).index_select(0, here(at::tensor(places, at::kLong)));
      const auto found = static_cast<int64_t>(places.size());
      memory.words.narrow(0, 2 * memory.top + done, found).copy_(picked.view(at::kInt));
      done += found;
    }
  }

  bool native_;
  cuda::DeviceOperatorSet operators_;
  cuda::Allocator torch_;
  std::unique_ptr<StepMemory> memory_;
  CudaMachine machine_{};
  std::unique_ptr<cuda::FlashTables> tables_ = std::make_unique<cuda::FlashTables>();
  std::unique_ptr<cuda::Faults> faults_;
  std::optional<cuda::DeviceSfu> sfu_;
};

}  // namespace

std::unique_ptr<Backend> make_cuda_backend(const OperatorSet& operators, bool native) {
  return std::make_unique<CudaBackend>(operators, native);
}

}  // namespace qf
