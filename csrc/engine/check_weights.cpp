#include "engine/check_weights.h"

#include <sstream>

namespace qf {
namespace {

class Checker {
 public:
  Checker(DType dtype, std::string place) : dtype_(dtype), place_(std::move(place)) {}

  void tensor(const char* name, const at::Tensor& found, at::IntArrayRef shape) const {
    require(found.defined(), place_, name, ": missing");
    require(found.sizes() == shape && found.scalar_type() == scalar_type(dtype_) && found.is_contiguous(), place_, name,
            ": expected ", text(scalar_type(dtype_), shape), ", found ", text(found.scalar_type(), found.sizes()));
  }
  void optional(const char* name, const at::Tensor& found, at::IntArrayRef shape) const {
    if (found.defined()) tensor(name, found, shape);
  }
  void linear(const char* name, const std::unique_ptr<Linear>& found, int64_t n, int64_t k) const {
    require(found != nullptr, place_, name, ": missing");
    require(found->n() == n && found->k() == k, place_, name, ": expected N = ", n, ", K = ", k,
            ", found N = ", found->n(), ", K = ", found->k());
  }

 private:
  static std::string text(at::ScalarType type, at::IntArrayRef shape) {
    std::ostringstream out;
    out << type << ' ' << shape;
    return out.str();
  }

  DType dtype_;
  std::string place_;  // "layer 3: "
};

void check_layer(const ModelConfig& config, DType dtype, int64_t index, const LayerWeights& layer) {
  const Checker check(dtype, "layer " + std::to_string(index) + ": ");
  check.tensor("input_norm", layer.input_norm, {config.hidden});
  check.tensor("post_attention_norm", layer.post_attention_norm, {config.hidden});
  check.optional("q_norm", layer.q_norm, {config.head_size});
  check.optional("k_norm", layer.k_norm, {config.head_size});
  require(layer.q_norm.defined() == layer.k_norm.defined(), "layer ", index, ": q_norm and k_norm go together");
  check.linear("qkv_proj", layer.qkv, config.qkv_columns(), config.hidden);
  check.linear("o_proj", layer.o, config.hidden, config.q_columns());
  check.linear("gate_up_proj", layer.gate_up, 2 * config.intermediate, config.hidden);
  check.linear("down_proj", layer.down, config.hidden, config.intermediate);
}

}  // namespace

void check_weights(const ModelConfig& config, DType dtype, const ModelWeights& weights) {
  require(static_cast<int64_t>(weights.layers.size()) == config.layers, "model: ", weights.layers.size(),
          " layers given, the configuration says ", config.layers);
  for (int64_t i = 0; i < config.layers; ++i) check_layer(config, dtype, i, weights.layers[static_cast<size_t>(i)]);
  const Checker check(dtype, "model: ");
  check.tensor("final_norm", weights.final_norm, {config.hidden});
  check.optional("embedding", weights.embedding, {config.vocabulary, config.hidden});
  check.linear("lm_head", weights.lm_head, config.vocabulary, config.hidden);
  require(weights.embedding.defined() || weights.lm_head->is_dense(),
          "model: without an embedding its rows come from the lm_head, whose weights are codes here");
  require(weights.rotary_cache.defined() && weights.rotary_cache.dim() == 2, "model: rotary_cache: missing");
  check.tensor("rotary_cache", weights.rotary_cache, {weights.rotary_cache.size(0), config.head_size});
}

}  // namespace qf
