// The forward pass of a Llama-family model. It moves tensors and calls kernels and operators; it holds no arithmetic.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "engine/kv_cache.h"
#include "engine/linear.h"
#include "engine/machine.h"
#include "engine/model_config.h"
#include "engine/recorded_steps.h"

namespace qf {

struct LayerWeights {
  at::Tensor input_norm, post_attention_norm;  // [hidden]
  at::Tensor q_norm, k_norm;                   // [head_size], Qwen3 only
  std::unique_ptr<Linear> qkv, o, gate_up, down;
};

struct ModelWeights {
  std::vector<LayerWeights> layers;
  at::Tensor final_norm;    // [hidden]
  at::Tensor embedding;     // [vocabulary, hidden]; undefined when it is tied: rows then come from the lm_head's panels
  at::Tensor rotary_cache;  // [positions, head_size], see operators/rotary.h
  std::unique_ptr<Linear> lm_head;
};

/// The new tokens of one sequence in a step.
struct Segment {
  KvCache* cache;
  const int64_t* ids;
  int64_t count;
};

/// Takes rows first .. first + logits.size(0) - 1: logits [rows, vocabulary].
using LogitsBlock = std::function<void(int64_t first, const at::Tensor& logits)>;

class Transformer {
 public:
  Transformer(ModelConfig config, DType dtype, OperatorSet operators, Machine machine, ModelWeights weights);

  /// Runs the segments' tokens as one flat batch (M = their total) and appends them to their caches. Returns the normed
  /// hidden states, [M, hidden].
  at::Tensor forward(const std::vector<Segment>& segments);
  /// lm_head over rows of hidden states, as one GEMM, handed out in blocks of rows (whole, they would be the largest
  /// tensor of a step).
  void logits(const at::Tensor& hidden, const LogitsBlock& block);

  const ModelConfig& config() const { return config_; }
  const Machine& machine() const { return machine_; }
  /// Of rows of logits.
  LogprobAnswer logprobs(const at::Tensor& logits, const LogprobQuery& query);
  DType dtype() const { return dtype_; }
  int64_t positions() const { return weights_.rotary_cache.size(0); }
  KvCache new_cache(int64_t capacity) const { return KvCache(*machine_.backend, config_, dtype_, capacity); }
  /// Seeds the order of racing sums and starts the numbering of calls again.
  void reseed(uint64_t seed);

  /// (layer name, linear) of every linear layer kind: those of the first decoder layer, and the lm_head.
  std::vector<std::pair<std::string, const Linear*>> linear_kinds() const;
  /// The same of every decoder layer.
  std::vector<std::pair<std::string, const Linear*>> all_linears() const;
  /// Notes on everything that ran since the last call.
  PathNotes take_notes() { return std::exchange(notes_, {}); }
  /// Whether decode steps may be recorded and repeated, where the backend can; no bit depends on it.
  void set_recording(bool on) { recording_ = on; }

 private:
  struct Batch {
    int64_t rows;
    at::Tensor tokens;  // [2, rows] int64, on the backend: ids, positions
    const std::vector<Segment>* segments;
    uint64_t first_call;  // number of its first linear layer's call

    const int64_t* ids() const { return tokens.const_data_ptr<int64_t>(); }
    const int64_t* positions() const { return ids() + rows; }
  };
  /// Runs an operator on the backend and notes what its definition says of the call.
  template <class Args>
  void run(const Definition<Args>& definition, const Args& args) {
    machine_.backend->run(args);
    definition.add_unconfirmed(args, notes_.unconfirmed);
  }
  Batch make_batch(const std::vector<Segment>& segments);
  at::Tensor tokens(const std::vector<int64_t>& ids_positions, bool decode);
  /// Empty: the step cannot be recorded.
  StepKey step_key(const Batch& batch);
  StepOutcome run_layers(const Batch& batch);
  AttentionArgs attention_args(const std::vector<AttentionSequence>& sequences) const;
  at::Tensor embed(const Batch& batch);
  void note_plan(Linear& layer, int64_t rows);
  at::Tensor linear(Linear& layer, const at::Tensor& x);
  at::Tensor norm(const at::Tensor& weight, const at::Tensor& x);
  void add_norm(const at::Tensor& weight, at::Tensor& x, at::Tensor& residual);
  at::Tensor attention(int64_t index, const Batch& batch, const at::Tensor& x);
  /// Norms of the heads, their rotation, and the new keys' and values' way into the caches.
  void prepare_heads(int64_t index, const Batch& batch, at::Tensor& qkv);
  std::vector<RmsNormArgs> head_norms(const LayerWeights& layer, const Batch& batch, void* qkv) const;
  RotaryArgs rotation(const Batch& batch, void* x, int64_t heads) const;
  at::Tensor mlp(LayerWeights& layer, const at::Tensor& x);

  ModelConfig config_;
  DType dtype_;
  OperatorSet operators_;
  Machine machine_;
  ModelWeights weights_;
  uint64_t calls_ = 0;
  PathNotes notes_;
  bool recording_ = true;
  RecordedSteps steps_;
  std::map<int64_t, at::Tensor> decode_tokens_;  // by rows: recorded steps read them where they are
};

}  // namespace qf
