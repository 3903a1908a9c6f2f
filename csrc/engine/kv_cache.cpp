#include "engine/kv_cache.h"

namespace qf {

KvCache::KvCache(const Backend& backend, const ModelConfig& config, DType dtype, int64_t capacity)
    : capacity_(capacity) {
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    keys_.push_back(backend.new_tensor(dtype, {capacity, config.kv_columns()}));
    values_.push_back(backend.new_tensor(dtype, {capacity, config.kv_columns()}));
    panels_.push_back(dtype == DType::fp32 ? nullptr : backend.new_panels(config.kv_heads, config.head_size));
  }
}

void KvCache::advance(int64_t count) {
  require(length_ + count <= capacity_, "key-value cache: ", length_ + count, " tokens, room for ", capacity_);
  length_ += count;
}

}  // namespace qf
