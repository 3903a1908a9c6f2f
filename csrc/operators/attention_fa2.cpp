// FlashAttention 2 as vLLM 0.21 runs it on GPUs before Hopper: with a paged cache always the split kernel, whose tile
// is 64 rows by 256 keys (head size 64) or 128 keys (head size 128), also for a single part. From the source; recorded
// only within one block of keys, where it has the bits of FlashAttention 3.
#include "operators/attention_flash.h"

namespace qf {
namespace {

BlockRange part_fa2(const AttentionSizes& sizes, const AttentionTile& tile, int64_t /*row_block*/, int64_t part,
                    int64_t parts) {
  return fa2_part(sizes, tile, part, parts);
}

}  // namespace

std::vector<FlashPlan> plan_fa2(const AttentionArgs& args) {
  const FlashPlan plan{fa2_tile(args.head_size), fa2_splits(largest_sizes(args), args.sequence_count), part_fa2,
                       FlashMerge::fa2};
  return std::vector<FlashPlan>(static_cast<size_t>(args.sequence_count), plan);
}

void attention_fa2(const OperatorContext& context, const AttentionArgs& args) {
  attention_flash(context, args, plan_fa2(args));
}

void attention_fa2_notes(const AttentionArgs& args, Notes& notes) {
  const AttentionSizes largest = largest_sizes(args);
  const AttentionTile tile = fa2_tile(args.head_size);
  if (largest.group != 3)
    notes.push_back("attention fa2: " + std::to_string(largest.group) + " heads per key-value head (3 recorded)");
  if (args.dtype != DType::fp16) notes.push_back("attention fa2: bf16 (source only)");
  if (args.head_size != 64)
    notes.push_back("attention fa2: head size " + std::to_string(args.head_size) + " (64 recorded)");
  if (largest.keys > 104) notes.push_back("attention fa2: more than 104 keys (longest recording)");
  if (largest.keys > tile.keys) notes.push_back("attention fa2: several blocks of keys (source only)");
  if (fa2_splits(largest, args.sequence_count) > 1)
    notes.push_back("attention fa2: split keys and their combination (source only)");
  if (has_later_chunk(args)) notes.push_back("attention fa2: a prompt in chunks (source only)");
  if (args.sequence_count > 1) notes.push_back("attention fa2: several sequences in a call (source only)");
  notes.push_back("attention fa2: recorded on Hopper (PTX), not on the GPUs whose machine code runs there");
}

}  // namespace qf
