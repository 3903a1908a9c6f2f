// The table of cosines and sines that rotary reads.
#pragma once

#include "numerics/rope_cache.h"
#include "operators/context.h"

namespace qf {

struct RotaryCacheArgs {
  DType dtype;  // fp32 for the fp32 definition
  float theta;
  int64_t head_size;
  int64_t positions;
  RopeScaling scaling;  // factor 1: none
  void* out;            // [positions][head_size]: cosines of the head_size / 2 pairs, then their sines
};

void rotary_cache_vllm(const OperatorContext& context, const RotaryCacheArgs& args);
void rotary_cache_vllm_notes(const RotaryCacheArgs& args, Notes& notes);
void rotary_cache_fp32(const OperatorContext& context, const RotaryCacheArgs& args);

}  // namespace qf
