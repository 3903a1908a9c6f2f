// The forward pass of a Llama-family model. It moves tensors and calls kernels and operators; it holds no arithmetic.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "engine/kv_cache.h"
#include "engine/linear.h"
#include "engine/machine.h"
#include "engine/model_config.h"

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

/// What a stretch of work ran that a reader of its numbers must know.
struct PathNotes {
  std::set<std::string> unconfirmed;  // definitions that no recording confirms
  std::set<std::string> racing;       // kernels whose sums race
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

 private:
  struct Batch {
    int64_t rows;
    at::Tensor ids, positions;  // [rows] int64, on the backend
    const std::vector<Segment>* segments;
  };
  /// Runs an operator on the backend and notes what its definition says of the call.
  template <class Args>
  void run(const Definition<Args>& definition, const Args& args) {
    machine_.backend->run(args);
    definition.add_unconfirmed(args, notes_.unconfirmed);
  }
  Batch make_batch(const std::vector<Segment>& segments) const;
  at::Tensor embed(const Batch& batch);
  void note_plan(Linear& layer, int64_t rows);
  at::Tensor linear(Linear& layer, const at::Tensor& x);
  void norm(const at::Tensor& weight, at::Tensor& x);
  void add_norm(const at::Tensor& weight, at::Tensor& x, at::Tensor& residual);
  at::Tensor attention(int64_t index, const Batch& batch, const at::Tensor& x);
  void rotate(const Batch& batch, at::Tensor& qkv);
  void head_norms(const LayerWeights& layer, at::Tensor& qkv);
  at::Tensor mlp(LayerWeights& layer, const at::Tensor& x);

  ModelConfig config_;
  DType dtype_;
  OperatorSet operators_;
  Machine machine_;
  ModelWeights weights_;
  uint64_t calls_ = 0;
  PathNotes notes_;
};

}  // namespace qf
