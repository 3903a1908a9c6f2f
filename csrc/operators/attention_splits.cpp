#include "operators/attention_splits.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace qf {
namespace {

constexpr int64_t kWholeBlocks = 4;  // FlashAttention 3 splits from five blocks of keys on

/// Share of the last wave of thread blocks that is busy.
float wave_efficiency(int64_t blocks, int64_t parts, int64_t slots) {
  const float waves = static_cast<float>(blocks * parts) / static_cast<float>(slots);
  return waves / std::ceil(waves);
}

}  // namespace

AttentionTile fa3_tile(int64_t queries, int64_t group, int64_t head_size) {
  const bool small = queries * group <= 64;
  if (head_size <= 64) return small ? AttentionTile{64, 192} : AttentionTile{192, 128};
  return small ? AttentionTile{64, 128} : AttentionTile{128, 128};
}

int64_t fa3_split_bound(const AttentionSizes& largest) {
  const AttentionTile tile = fa3_tile(largest.queries, largest.group, largest.head_size);
  const int64_t tiles = largest.kv_heads * ceil_div(largest.queries * largest.group, tile.rows);
  const int64_t key_blocks = ceil_div(largest.keys, tile.keys);
  if (static_cast<float>(tiles) >= 0.8f * static_cast<float>(largest.sm_count) || key_blocks <= kWholeBlocks) return 1;
  const int64_t most = std::min({int64_t{128}, largest.sm_count, key_blocks});
  float best = 0.0f;
  for (int64_t s = 1; s <= most; ++s) best = std::max(best, wave_efficiency(tiles, s, largest.sm_count));
  for (int64_t s = 1; s <= most; ++s) {
    if (static_cast<double>(wave_efficiency(tiles, s, largest.sm_count)) >= 0.85 * best) return s;
  }
  return 1;
}

int64_t fa3_blocks(const AttentionSizes& sizes, const AttentionTile& tile) {
  return ceil_div(sizes.queries * sizes.group, tile.rows) * ceil_div(sizes.keys, tile.keys);
}

int64_t fa3_splits(const AttentionSizes& sizes, const AttentionTile& tile, int64_t bound, int64_t blocks) {
  if (bound <= 1) return 1;
  const float share =
      static_cast<float>(blocks) * 1.1f * static_cast<float>(sizes.kv_heads) / static_cast<float>(sizes.sm_count);
  const int64_t per_part = static_cast<int64_t>(std::ceil(share));
  return std::max<int64_t>(1, std::min(ceil_div(ceil_div(sizes.keys, tile.keys), per_part), bound));
}

BlockRange fa3_part(const AttentionSizes& sizes, const AttentionTile& tile, int64_t row_block, int64_t part,
                    int64_t parts) {
  const int64_t key_blocks = ceil_div(sizes.keys, tile.keys);
  int64_t last = key_blocks;
  if (sizes.queries > 1) {  // a single query sees every key; otherwise the tile's last query bounds the blocks
    const int64_t seen = ((row_block + 1) * tile.rows - 1) / sizes.group + 1 + sizes.keys - sizes.queries;
    last = std::min(key_blocks, ceil_div(seen, tile.keys));
  }
  const int64_t per_part = ceil_div(last, parts);
  return {part * per_part, std::min((part + 1) * per_part, last)};
}

AttentionTile fa2_tile(int64_t head_size) { return {64, head_size <= 64 ? 256 : 128}; }

int64_t fa2_splits(const AttentionSizes& largest, int64_t sequences) {
  if (largest.queries != 1 || largest.group == 1) return 1;
  const AttentionTile tile = fa2_tile(largest.head_size);
  const int64_t slots = 2 * largest.sm_count;
  const int64_t tiles = sequences * largest.kv_heads * ceil_div(largest.group, tile.rows);
  const int64_t key_blocks = ceil_div(largest.keys, tile.keys);
  if (static_cast<float>(tiles) >= 0.8f * static_cast<float>(slots)) return 1;
  const int64_t most = std::min({int64_t{128}, slots, key_blocks});
  // A number of parts that cuts as many blocks as the one before it would leave a part empty.
  const auto useful = [key_blocks](int64_t s) {
    return s == 1 || ceil_div(key_blocks, s) != ceil_div(key_blocks, s - 1);
  };
  float best = 0.0f;
  for (int64_t s = 1; s <= most; ++s) {
    if (useful(s)) best = std::max(best, wave_efficiency(tiles, s, slots));
  }
  for (int64_t s = 1; s <= most; ++s) {
    if (useful(s) && static_cast<double>(wave_efficiency(tiles, s, slots)) >= 0.85 * best) return s;
  }
  return 1;
}

int64_t whole_keys(std::string_view definition, int64_t head_size) {
  constexpr int64_t kAll = std::numeric_limits<int64_t>::max();
  if (definition == "fp32") return kAll;
  if (definition == "fa2") return fa2_tile(head_size).keys;
  if (definition == "fa3") {
    return kWholeBlocks * std::min(fa3_tile(1, 1, head_size).keys, fa3_tile(kAll, 1, head_size).keys);
  }
  return 0;
}

BlockRange fa2_part(const AttentionSizes& sizes, const AttentionTile& tile, int64_t part, int64_t parts) {
  const int64_t key_blocks = ceil_div(sizes.keys, tile.keys);
  const int64_t per_part = ceil_div(key_blocks, parts);
  return {part * per_part, std::min((part + 1) * per_part, key_blocks)};
}

}  // namespace qf
