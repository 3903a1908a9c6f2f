// Causal self-attention with grouped queries: the queries are the last tokens of their sequence.
#pragma once

#include <memory>
#include <vector>

#include "numerics/dot_chain.h"
#include "operators/context.h"

namespace qf {

class KeyValuePanels;

/// One sequence of a call. Token strides are those of AttentionArgs; a token's heads lie one after the other.
struct AttentionSequence {
  const void* q;  // [queries][heads][head_size]
  const void* k;  // [keys][kv_heads][head_size]
  const void* v;  // [keys][kv_heads][head_size]
  void* out;      // [queries][heads][head_size]
  int64_t queries;
  int64_t keys;                      // >= queries
  KeyValuePanels* panels = nullptr;  // optional: what earlier calls prepared of k and v; see attention_panels.h
};

struct AttentionArgs {
  DType dtype;
  const AttentionSequence* sequences;
  int64_t sequence_count;
  int64_t heads;
  int64_t kv_heads;  // divides heads
  int64_t head_size;
  int64_t q_stride;  // elements from token to token
  int64_t k_stride;
  int64_t v_stride;
  int64_t out_stride;
  float scale;
  int64_t sm_count;  // of the emulated GPU: the split of the keys depends on it
  MatrixUnit unit;   // of the emulated GPU, for dtype; unused by the fp32 definition
};

void attention_fa3(const OperatorContext& context, const AttentionArgs& args);
void attention_fa3_notes(const AttentionArgs& args, Notes& notes);
void attention_fa2(const OperatorContext& context, const AttentionArgs& args);
void attention_fa2_notes(const AttentionArgs& args, Notes& notes);
void attention_fp32(const OperatorContext& context, const AttentionArgs& args);

/// Throws Error when sizes contradict each other.
void check_attention(const AttentionArgs& args);

}  // namespace qf
