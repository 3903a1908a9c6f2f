// Logprob rows as they cross into this layer: plain spans, one row per predicted token.
#pragma once

#include <cstdint>
#include <span>

namespace qf {

/// Row i owns entries offsets[i] .. offsets[i + 1] - 1 of ids and logprobs; its first `top_k` entries are the largest,
/// the rest were asked for by id.
struct LogprobRowsView {
  std::span<const int64_t> offsets;  // [rows + 1]
  std::span<const int32_t> ids;      // [entries]
  std::span<const float> logprobs;   // [entries]
  std::span<const int32_t> targets;  // [rows]

  int64_t rows() const { return static_cast<int64_t>(targets.size()); }
  int64_t begin(int64_t row) const { return offsets[static_cast<size_t>(row)]; }
  int64_t end(int64_t row) const { return offsets[static_cast<size_t>(row) + 1]; }
  int32_t id(int64_t entry) const { return ids[static_cast<size_t>(entry)]; }
  float logprob(int64_t entry) const { return logprobs[static_cast<size_t>(entry)]; }
  int32_t target(int64_t row) const { return targets[static_cast<size_t>(row)]; }
};

/// Throws Error unless offsets start at 0, never fall, and end at the number of entries.
void check_rows(const LogprobRowsView& view, const char* name);

}  // namespace qf
