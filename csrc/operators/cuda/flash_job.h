// What a kernel of flash attention reads: sequences, and the items of work that the host cut them into.
#pragma once

#include <cstdint>

#include "numerics/matrix_unit.h"
#include "operators/flash_merge.h"

namespace qf::cuda {

struct FlashSequence {
  const uint16_t *q, *k, *v;
  uint16_t* out;
  int32_t queries, parts;
  int64_t partial_begin;  // of partial rows: [kv head][packed row][part]
};

/// Packed rows from first_row on, over the key blocks [block_begin, block_end): once per kv head. `keys` are those of
/// the sequence: what changes from one decode step to the next stands here alone.
struct FlashItem {
  int32_t sequence, first_row, part, block_begin, block_end, keys;

  bool operator==(const FlashItem&) const = default;
};

/// Sequences that travel with the launch, without a table in memory.
constexpr int kInlineSequences = 16;

struct FlashJob {
  const FlashSequence* sequences;  // null: few_sequences
  FlashSequence few_sequences[kInlineSequences];
  const FlashItem* items;
  float* partials;  // [partial rows][head size], of sequences with several parts
  float* log_sums;  // [partial rows]
  MatrixUnit unit;
  SfuView sfu;
  bool own_unit;  // its ex2 and rcp give the tables' bits
  FlashMerge merge;
  int32_t group, kv_heads, block_keys;
  int64_t q_stride, k_stride, v_stride, out_stride;
  float scale, log2_scale;
  bool overlapped;  // the launch

  QF_HD_INLINE const FlashSequence& sequence(int i) const {
    return sequences == nullptr ? few_sequences[i] : sequences[i];
  }
};

/// A partial row's place in FlashJob::partials.
QF_HD_INLINE int64_t partial_row(const FlashSequence& sequence, int32_t group, int64_t kv_head, int64_t row,
                                 int64_t part) {
  const int64_t rows = static_cast<int64_t>(sequence.queries) * group;
  return sequence.partial_begin + (kv_head * rows + row) * sequence.parts + part;
}

}  // namespace qf::cuda
