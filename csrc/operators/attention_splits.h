// Into how many parts FlashAttention cuts the keys of a sequence, and where: pure functions of sizes and the SM count.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/integers.h"

namespace qf {

/// Rows (query x head of a group) and keys of one thread block's tile.
struct AttentionTile {
  int64_t rows;
  int64_t keys;
};

struct AttentionSizes {
  int64_t queries;
  int64_t keys;
  int64_t group;  // query heads per kv head
  int64_t kv_heads;
  int64_t head_size;
  int64_t sm_count;
};

AttentionTile fa3_tile(int64_t queries, int64_t group, int64_t head_size);
/// Upper bound that the host computes from the longest query and key lengths of the call, as if that sequence were
/// alone.
int64_t fa3_split_bound(const AttentionSizes& largest);
/// Parts of one sequence; `blocks` = tiles x key blocks, summed over the sequences of the call.
int64_t fa3_splits(const AttentionSizes& sizes, const AttentionTile& tile, int64_t bound, int64_t blocks);
/// Tiles x key blocks of one sequence, as fa3_splits counts them.
int64_t fa3_blocks(const AttentionSizes& sizes, const AttentionTile& tile);

/// FlashAttention 2 with a paged cache: the split kernel's tile (64 rows).
AttentionTile fa2_tile(int64_t head_size);
/// Parts of every sequence of the call; only single-token calls with grouped queries are split.
int64_t fa2_splits(const AttentionSizes& largest, int64_t sequences);

/// The most keys that an attention definition takes whole in every call; beyond, a call may split them, which takes
/// lg2.
int64_t whole_keys(std::string_view definition, int64_t head_size);

/// Key blocks [first, last) of part `part` of `parts` for the tile of rows [row_block * tile.rows, ...).
struct BlockRange {
  int64_t first;
  int64_t last;
};
BlockRange fa3_part(const AttentionSizes& sizes, const AttentionTile& tile, int64_t row_block, int64_t part,
                    int64_t parts);
BlockRange fa2_part(const AttentionSizes& sizes, const AttentionTile& tile, int64_t part, int64_t parts);

}  // namespace qf
