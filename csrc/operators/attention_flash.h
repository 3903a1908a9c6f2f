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

namespace qf {

/// What one definition fixes for one sequence of a call.
struct FlashPlan {
  AttentionTile tile;
  int64_t parts = 1;
  /// Key blocks of a part, for the tile that holds a row.
  BlockRange (*range)(const AttentionSizes& sizes, const AttentionTile& tile, int64_t row_block, int64_t part,
                      int64_t parts);
  /// Logarithm of a part's sum of exponentials, from its largest score and its sum.
  float (*log_sum)(const SfuView& sfu, float scale, float largest, float sum);
  /// weights[part] = share of each part, from the parts' logarithms; parts <= 128.
  void (*weigh)(const SfuView& sfu, int64_t head_size, const float* log_sums, int64_t parts, float* weights);
};

/// Runs every sequence of the call by its plan.
void attention_flash(const OperatorContext& context, const AttentionArgs& args, const std::vector<FlashPlan>& plans);

AttentionSizes attention_sizes(const AttentionArgs& args, const AttentionSequence& sequence);
/// Longest query and key lengths of the call.
AttentionSizes largest_sizes(const AttentionArgs& args);

/// Sum over `lanes` lanes by butterfly (xor lanes / 2, ..., 1); lane t first adds values t, t + lanes, ... from +0.
float butterfly_sum(const float* values, int64_t count, int lanes);

}  // namespace qf
