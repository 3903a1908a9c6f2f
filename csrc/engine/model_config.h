// Sizes and constants of a decoder-only model of the Llama family (Llama, Qwen2, Qwen3).
#pragma once

#include <cstdint>

namespace qf {

struct ModelConfig {
  int64_t layers;
  int64_t hidden;
  int64_t intermediate;
  int64_t heads;
  int64_t kv_heads;
  int64_t head_size;
  int64_t vocabulary;
  float rms_epsilon;

  int64_t q_columns() const { return heads * head_size; }
  int64_t kv_columns() const { return kv_heads * head_size; }
  int64_t qkv_columns() const { return q_columns() + 2 * kv_columns(); }
};

}  // namespace qf
