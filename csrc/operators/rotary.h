// Rotary position embedding over halves: element i of a head's first half turns with element i of its second half.
#pragma once

#include "operators/context.h"

namespace qf {

struct RotaryArgs {
  DType dtype;
  const int64_t* positions;  // [tokens]
  const void* cache;  // [cache_rows][head_size]: cosines, then sines, one each per pair; fp32 for the fp32 definition
  void* x;            // [tokens][heads][head_size], turned in place
  int64_t tokens;
  int64_t heads;
  int64_t head_size;
  int64_t stride;  // elements from token to token
  int64_t cache_rows;
};

/// Throws Error for a position outside the cache.
void check_positions(const RotaryArgs& args);

void rotary_vllm(const OperatorContext& context, const RotaryArgs& args);
void rotary_vllm_notes(const RotaryArgs& args, Notes& notes);
void rotary_fp32(const OperatorContext& context, const RotaryArgs& args);

}  // namespace qf
