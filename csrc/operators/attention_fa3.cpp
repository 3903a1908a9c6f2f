// FlashAttention 3 as vLLM 0.21 runs it on Hopper (paged cache, packed groups).
#include "operators/attention_flash.h"

namespace qf {

std::vector<FlashPlan> plan_fa3(const AttentionArgs& args) {
  const AttentionSizes largest = largest_sizes(args);
  const AttentionTile tile = fa3_tile(largest.queries, largest.group, largest.head_size);
  const int64_t bound = fa3_split_bound(largest);
  int64_t blocks = 0;
  for (int64_t i = 0; i < args.sequence_count; ++i)
    blocks += fa3_blocks(attention_sizes(args, args.sequences[i]), tile);
  std::vector<FlashPlan> plans;
  for (int64_t i = 0; i < args.sequence_count; ++i) {
    const int64_t parts = fa3_splits(attention_sizes(args, args.sequences[i]), tile, bound, blocks);
    plans.push_back({tile, parts, fa3_part, FlashMerge::fa3});
  }
  return plans;
}

void attention_fa3(const OperatorContext& context, const AttentionArgs& args) {
  attention_flash(context, args, plan_fa3(args));
}

void attention_fa3_notes(const AttentionArgs& args, Notes& notes) {
  if (args.dtype != DType::fp16) notes.push_back("attention fa3: bf16 (source only)");
  if (args.head_size != 64)
    notes.push_back("attention fa3: head size " + std::to_string(args.head_size) + " (tiles from source; 64 recorded)");
  const AttentionSizes largest = largest_sizes(args);
  if (largest.keys > 1316) notes.push_back("attention fa3: more than 1,316 keys");
  for (int64_t i = 0; i < args.sequence_count; ++i) {
    const AttentionSequence& sequence = args.sequences[i];
    if (sequence.queries == 1 || sequence.queries == sequence.keys) continue;
    notes.push_back("attention fa3: a chunk of queries behind earlier keys (chunked prefill)");
    break;
  }
}

}  // namespace qf
