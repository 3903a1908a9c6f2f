// Where a model computes: a CPU or a GPU. A backend owns tensors and weights and carries out plans and operators; no
// bit of a result depends on which one it is.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "engine/tensors.h"
#include "kernels/gemm.h"
#include "kernels/pack/packed_weight.h"
#include "operators/attention_panels.h"
#include "operators/cache_rows.h"
#include "operators/operator_set.h"

namespace qf {

/// The order of racing sums.
struct Races {
  uint64_t seed;
  bool deterministic;
};

/// A weight where its backend computes. Pointers in arguments are those of the backend's tensors.
class Weight {
 public:
  virtual ~Weight() = default;
  /// Every call with the same plan.m has the same plan.
  virtual void multiply(const Plan& plan, const GemmArgs& args, const Races& races) = 0;
  /// Rows ids[0 .. count) of a dense weight, which lie inside it, into out, [count][k] in `format`.
  virtual void copy_rows(const int64_t* ids, int64_t count, Format format, void* out) const = 0;
  /// On a GPU: what took the calls so far, by their rows: schemes of the emulator, native kernels.
  virtual std::map<int64_t, std::set<std::string>> ran() const { return {}; }
};

/// Which logprobs of rows of logits are wanted.
struct LogprobQuery {
  DType dtype;
  int64_t top_k;
  std::vector<int32_t> rows, ids;  // single entries, rows ascending
};

/// On the host, whatever the backend.
struct LogprobAnswer {
  std::vector<int32_t> top_ids;   // [rows of logits][top_k], in the order of top_k
  std::vector<float> top_values;  // the same
  std::vector<float> single;      // as in the query
};

/// What a stretch of work ran that a reader of its numbers must know.
struct PathNotes {
  std::set<std::string> unconfirmed;  // definitions that no recording confirms
  std::set<std::string> racing;       // kernels whose sums race
};

/// The calls between a layer's qkv product and its attention. Norms are those of queries and keys, or none.
struct HeadCall {
  std::vector<RmsNormArgs> norms;
  RotaryArgs queries, keys;
  std::vector<CacheRowsArgs> stores;  // sequence by sequence
};

/// Queued work that can be queued again, as it was but for what its memory holds.
class Recording {
 public:
  virtual ~Recording() = default;
  virtual void replay() = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;

  /// Memory of tensors.
  virtual at::Device device() const = 0;
  virtual at::Tensor new_tensor(at::ScalarType type, at::IntArrayRef shape) const {
    return at::empty(shape, at::TensorOptions().dtype(type).device(device()));
  }
  at::Tensor new_tensor(DType dtype, at::IntArrayRef shape) const { return new_tensor(scalar_type(dtype), shape); }
  /// The tensor itself where it lies there already.
  at::Tensor here(const at::Tensor& tensor) const { return tensor.to(device()); }

  virtual std::unique_ptr<Weight> take(PackedWeight weight) = 0;
  /// Tables of the emulated special-function unit; they outlive the backend, or the next call.
  virtual void set_special(const SfuView& special) = 0;
  /// All weights are there.
  virtual void loaded() {}
  /// Before work on another thread than the last.
  virtual void enter() {}

#define QF_OPERATOR(name, Args) virtual void run(const Args& args) = 0;
#define QF_DEFINITION(...)
#include "operators/operators.def"
#undef QF_DEFINITION
#undef QF_OPERATOR

  virtual void store(const CacheRowsArgs& args) = 0;
  /// Head norms, rotation and the way into the caches in one call, with the bits of the three; false, with nothing
  /// done, where the backend has no such call for these definitions and sizes.
  virtual bool run_heads(const HeadCall&) { return false; }
  /// Overwrites a contiguous tensor of this backend, in the order of its work; host memory may be reused at once.
  virtual void write(const at::Tensor& to, const void* host) = 0;

  /// Ahead of a step's calls of attention, all with these sizes (pointers are not read): what a recording of the step
  /// depends on, empty where it cannot be recorded.
  virtual std::vector<int64_t> prepare_attention(const AttentionArgs&) { return {}; }
  /// Records what the work queues, without running it; null where the backend records nothing or the work does what
  /// cannot be recorded. Tensors that the work makes and keeps must not outlive the recording's last replay.
  virtual std::unique_ptr<Recording> record(const std::function<void()>&) { return nullptr; }

  /// logits: [rows, vocabulary]. Waits for the answer.
  virtual LogprobAnswer logprobs(const at::Tensor& logits, const LogprobQuery& query) = 0;
  /// Rows of logits to hold at once.
  virtual int64_t logits_rows(int64_t row_bytes) const = 0;
  /// What attention keeps beside a cache of keys and values, or null.
  virtual std::unique_ptr<KeyValuePanels> new_panels(int64_t kv_heads, int64_t head_size) const = 0;

  /// The machine's name, empty for a CPU.
  virtual std::string gpu() const { return {}; }
};

}  // namespace qf
