// Attention of a few packed rows over a range of key blocks: scores, online softmax, values. One thread's work.
#pragma once

#include <vector>

#include "operators/attention.h"
#include "operators/attention_panels.h"
#include "operators/attention_splits.h"
#include "operators/flash_merge.h"

namespace qf {

/// Packed rows [first_row, first_row + count) of one kv head, as the left operand of dot chains.
struct FlashQueries {
  int64_t kv_head;
  int64_t first_row;
  int64_t count;
  std::vector<float> value;  // [count][head_size]
  std::vector<uint32_t> cell;
};

FlashQueries load_queries(const OperatorContext& context, const AttentionArgs& args, int64_t sequence, int64_t kv_head,
                          int64_t first_row, int64_t count);

class FlashRows {
 public:
  FlashRows(const OperatorContext& context, const AttentionArgs& args, const AttentionSizes& sizes,
            const KeyValuePanels& panels, const FlashQueries& queries);

  /// Blocks of `block_keys` keys, from blocks.last - 1 down to blocks.first.
  void walk(const BlockRange& blocks, int64_t block_keys);
  /// Divides by the sums; merge: how the parts are weighed, or null where there are no others.
  void normalise(const FlashMerge* merge);

  const float* output(int64_t row) const { return output_.data() + row * sizes_.head_size; }
  float log_sum(int64_t row) const { return log_sums_[static_cast<size_t>(row)]; }

 private:
  void scores(int64_t first_key, int64_t panel_count);
  void values(int64_t first_key, int64_t panel_count);
  void softmax_row(int64_t row, int64_t visible, int64_t padded);
  int64_t visible_keys(int64_t row) const;

  const OperatorContext& context_;
  const AttentionArgs& args_;
  AttentionSizes sizes_;
  const KeyValuePanels& panels_;
  const FlashQueries& queries_;
  float log2_scale_;             // scale * log2(e)
  std::vector<float> largest_;   // [count]
  std::vector<float> sums_;      // [count][4]: one per thread of a quad
  std::vector<float> output_;    // [count][head_size]
  std::vector<float> log_sums_;  // [count]
  std::vector<float> scores_;    // [count][padded keys of the block]
  std::vector<float> probabilities_;
  std::vector<uint32_t> probability_cells_;
};

}  // namespace qf
