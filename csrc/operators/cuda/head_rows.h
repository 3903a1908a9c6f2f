// What lies between a layer's qkv product and its attention, in one launch: norms of the query and key heads (where a
// model has them), their rotation, and the new tokens' way into the cache. The bits are those of rms_norm_vllm,
// rotary_vllm and store_cache_rows, one after the other.
#pragma once

#include "operators/context.h"
#include "operators/cuda/device_context.h"

namespace qf::cuda {

/// Where row i of a call goes: to row positions[i] of these.
struct CacheTarget {
  void* keys;  // [capacity][kv_heads][head_size]
  void* values;
};
constexpr int kCacheTargets = 16;

struct HeadRowsArgs {
  DType dtype;
  void* qkv;  // [rows][heads + 2 kv_heads][head_size], contiguous; queries and keys are changed in place
  const void *q_norm, *k_norm;  // [head_size], or both null
  float epsilon;
  const int64_t* positions;  // [rows]
  const void* rotary_cache;  // as RotaryArgs::cache
  int64_t rotary_rows;
  int64_t rows, heads, kv_heads, head_size;
  bool one_target;  // targets[0] takes all rows; else targets[i] row i, up to kCacheTargets of them
  CacheTarget targets[kCacheTargets];
};

/// Whether head_rows takes such a call.
bool takes_head_rows(const HeadRowsArgs& args);
void head_rows(const DeviceOperatorContext& context, const HeadRowsArgs& args);

}  // namespace qf::cuda
