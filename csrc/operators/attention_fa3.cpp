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
  constexpr int64_t kPrompt = 1356, kDecode = 4539;  // longest recordings, with several queries and with one
  const AttentionSizes largest = largest_sizes(args);
  if (largest.keys > (largest.queries > 1 ? kPrompt : kDecode))
    notes.push_back("attention fa3: " + std::to_string(largest.keys) + " keys (recorded: " + std::to_string(kPrompt) +
                    ", with one query " + std::to_string(kDecode) + ")");
  if (has_later_chunk(args)) notes.push_back("attention fa3: a prompt in chunks (none recorded)");
}

}  // namespace qf
