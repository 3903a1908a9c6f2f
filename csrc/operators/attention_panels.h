// Keys and values of one sequence as the panels that dot chains read: widened to fp32, with exponents, once per token.
//
// A caller that decodes keeps one per (layer, sequence) and hands it to every call: a call then prepares only its new
// tokens. Costs 12 bytes per element of k and v; a caller short of memory leaves it away and pays the preparation
// again.
#pragma once

#include <cstdint>
#include <vector>

#include "numerics/dot_chain.h"
#include "operators/context.h"

namespace qf {

struct KeyValueSource {
  DType dtype;
  const void* k;
  const void* v;
  int64_t k_stride;
  int64_t v_stride;
  int64_t keys;
};

class KeyValuePanels {
 public:
  KeyValuePanels(int64_t kv_heads, int64_t head_size);

  int64_t keys() const { return keys_; }
  int64_t kv_heads() const { return static_cast<int64_t>(heads_.size()); }
  int64_t head_size() const { return head_size_; }
  /// Forgets tokens from `keys` on (0: all of them): for a cache that is rewound or reused.
  void truncate(int64_t keys);
  /// Prepares tokens keys() .. source.keys - 1; earlier ones are taken to be the same as before.
  void extend(const OperatorContext& context, const KeyValueSource& source);

  /// Panel of keys 16 p .. 16 p + 15: value[element of the head][key].
  ChainPanel keys_panel(int64_t kv_head, int64_t p) const;
  /// Panel of elements 16 p .. 16 p + 15 of the values, from key `first` on: value[key][element].
  ChainPanel values_panel(int64_t kv_head, int64_t p, int64_t first) const;

 private:
  void reserve(int64_t keys);
  void prepare(const OperatorContext& context, const KeyValueSource& source, int64_t kv_head, int64_t first,
               int64_t last);

  struct Head;
  void put(Head& head, int64_t key, const float* k, const float* v);

  struct Head {
    std::vector<float> k, v;
    std::vector<uint8_t> k_cells, v_cells;  // exponent codes
  };
  int64_t head_size_;
  int lowest_ = 0;  // smallest normal exponent of the type, 0 before the first token
  int64_t keys_ = 0;
  int64_t capacity_ = 0;  // a multiple of 16; tokens beyond keys_ hold zeros
  std::vector<Head> heads_;
};

}  // namespace qf
