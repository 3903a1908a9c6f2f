// The table of cosines and sines that rotary reads.
#pragma once

#include "operators/context.h"

namespace qf {

/// Llama 3's change of the frequencies; factor 1 means none.
struct RopeScaling {
  double factor = 1.0;
  double low_frequency_factor = 1.0;
  double high_frequency_factor = 4.0;
  int64_t original_positions = 8192;
};

struct RotaryCacheArgs {
  DType dtype;          // fp32 for the fp32 definition
  double theta;
  int64_t head_size;
  int64_t positions;
  RopeScaling scaling;
  void* out;            // [positions][head_size]: cosines of the head_size / 2 pairs, then their sines
};

void rotary_cache_vllm(const OperatorContext& context, const RotaryCacheArgs& args);
void rotary_cache_vllm_notes(const RotaryCacheArgs& args, Notes& notes);
void rotary_cache_fp32(const OperatorContext& context, const RotaryCacheArgs& args);

}  // namespace qf
