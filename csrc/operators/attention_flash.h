// The part that FlashAttention 2 and 3 share: blocks of keys from last to first, an online softmax per row, and the
// merge of split parts. The two differ in tiles, in how they split, and in how they weigh the parts.
//
// A packed row r of a kv head is query r / group, head r % group of the group.
#pragma once

#include <cstdint>
#include <vector>

#include "operators/attention.h"
#include "operators/attention_panels.h"
#include "operators/attention_splits.h"
#include "operators/elements.h"
#include "operators/flash_merge.h"

namespace qf {

/// What one definition fixes for one sequence of a call.
struct FlashPlan {
  AttentionTile tile;
  int64_t parts = 1;  // <= 128
  /// Key blocks of a part, for the tile that holds a row.
  BlockRange (*range)(const AttentionSizes& sizes, const AttentionTile& tile, int64_t row_block, int64_t part,
                      int64_t parts);
  FlashMerge merge;
};

/// A plan per sequence of the call.
std::vector<FlashPlan> plan_fa3(const AttentionArgs& args);
std::vector<FlashPlan> plan_fa2(const AttentionArgs& args);

/// What a call must fulfil besides check_attention; `lg2`: the special-function unit has its lg2 tables.
void check_flash(const AttentionArgs& args, const std::vector<FlashPlan>& plans, bool lg2);

/// Runs every sequence of the call by its plan.
void attention_flash(const OperatorContext& context, const AttentionArgs& args, const std::vector<FlashPlan>& plans);

AttentionSizes attention_sizes(const AttentionArgs& args, const AttentionSequence& sequence);
/// Longest query and key lengths of the call.
AttentionSizes largest_sizes(const AttentionArgs& args);
/// Whether a sequence has several queries after earlier keys: a chunk of its prompt.
bool has_later_chunk(const AttentionArgs& args);

}  // namespace qf
