#include "engine/operator_set.h"

#include "base/error.h"

namespace qf {

OperatorSet operator_set(std::string_view profile, bool hopper) {
  OperatorSet set{};
  set.embedding = embedding_copy;
  set.top_k = top_k_by_value;
  if (profile == "fp32") {
    set.rms_norm = rms_norm_fp32;
    set.fused_add_rms_norm = fused_add_rms_norm_fp32;
    set.rotary = rotary_fp32;
    set.attention = attention_fp32;
    set.silu_and_mul = silu_and_mul_fp32;
    set.log_softmax = log_softmax_fp32;
    return set;
  }
  require(profile == "vllm-0.21-eager", "unknown engine profile '", profile, "'; one of: vllm-0.21-eager, fp32");
  set.rms_norm = rms_norm_vllm;
  set.rms_norm_notes = rms_norm_vllm_notes;
  set.fused_add_rms_norm = fused_add_rms_norm_vllm;
  set.fused_add_rms_norm_notes = fused_add_rms_norm_vllm_notes;
  set.rotary = rotary_vllm;
  set.rotary_notes = rotary_vllm_notes;
  set.attention = hopper ? attention_fa3 : attention_fa2;
  set.attention_notes = hopper ? attention_fa3_notes : attention_fa2_notes;
  set.silu_and_mul = silu_and_mul_vllm;
  set.silu_and_mul_notes = silu_and_mul_vllm_notes;
  set.log_softmax = log_softmax_torch;
  set.log_softmax_notes = log_softmax_torch_notes;
  return set;
}

}  // namespace qf
