// Weights prepared once for emulation: compact, in panels of 16 columns, so that a panel's k range is one stretch of
// memory.
//
//   codes   [panel][k][8 bytes]      byte j: column j in the low nibble, column j + 8 in the high one
//   zeros   [panel][group][16]       uint8
//   scales  [panel][group][16]       bits of fp16 or bf16
//   offsets [panel][group][16]       fp32, only where the checkpoint stores float offsets: weight = (q - z) * s +
//   offset
//   dense   [panel][k][16]           bits of fp16 or bf16
//   wide    [panel][k][16]           fp32, in place of dense: only the fp32 kernel takes it
//
// N that is no multiple of 16 is padded with codes, zeros and scales of 0.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/plan.h"

namespace qf {

struct PackedWeight {
  int64_t n = 0, k = 0, group = 0;  // group is resolved (never -1)
  Format format = Format::fp16;     // of scales or numbers
  std::vector<uint8_t> codes;
  std::vector<uint8_t> zeros;
  std::vector<uint16_t> scales;
  std::vector<float> offsets;
  std::vector<uint16_t> dense;
  std::vector<float> wide;
  /// Act-order: row k of the codes meets column order[k] of the activations; empty: in place.
  std::vector<int32_t> order;

  bool is_dense() const { return !dense.empty() || !wide.empty(); }
  int64_t panels() const { return (n + kPanelWidth - 1) / kPanelWidth; }
  int64_t groups() const { return k / group; }
  int64_t bytes() const;
  /// Rows ids[0 .. count) of a dense weight ([n][k]) into out, [count][k] in `format` (fp32, or the weight's own).
  void copy_rows(const int64_t* ids, int64_t count, Format format, void* out) const;
};

/// Row-major sources. group_index may be null (row k belongs to group k / group); otherwise every group must own
/// exactly `group` rows, which are sorted by group (stable). offsets may be null.
struct CodesSource {
  int64_t n, k, group;
  const uint8_t* codes;        // [k][n], 0..15
  const uint8_t* zeros;        // [k / group][n], 0..15
  const uint16_t* scales;      // [k / group][n]
  Format scale_format;         // fp16 or bf16
  const float* offsets;        // [k / group][n] or null
  const int32_t* group_index;  // [k] or null
};

PackedWeight pack_codes(const CodesSource& source);
/// weight: [n][k] bits of fp16 or bf16.
PackedWeight pack_dense(const uint16_t* weight, int64_t n, int64_t k, Format format);
PackedWeight pack_dense(const float* weight, int64_t n, int64_t k);

}  // namespace qf
