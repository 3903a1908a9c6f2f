// Keys and values of one sequence, one pair of tensors per layer.
#pragma once

#include <memory>
#include <vector>

#include "engine/backend.h"
#include "engine/model_config.h"

namespace qf {

class KvCache {
 public:
  KvCache(const Backend& backend, const ModelConfig& config, DType dtype, int64_t capacity);

  int64_t length() const { return length_; }
  int64_t capacity() const { return capacity_; }
  /// Makes room for `count` more tokens in every layer; their keys and values are then stored layer by layer
  /// (Backend::store).
  void advance(int64_t count);

  void* keys(int64_t layer) const { return keys_[static_cast<size_t>(layer)].data_ptr(); }
  void* values(int64_t layer) const { return values_[static_cast<size_t>(layer)].data_ptr(); }
  /// What attention has prepared of this layer's keys and values in earlier steps.
  KeyValuePanels* panels(int64_t layer) { return panels_[static_cast<size_t>(layer)].get(); }

 private:
  int64_t length_ = 0;
  int64_t capacity_;
  std::vector<at::Tensor> keys_, values_;  // [capacity, kv_heads * head_size]
  std::vector<std::unique_ptr<KeyValuePanels>> panels_;
};

}  // namespace qf
