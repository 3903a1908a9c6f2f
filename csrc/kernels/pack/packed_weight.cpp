#include "kernels/pack/packed_weight.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/half.h"

namespace qf {
namespace {

/// Rows sorted by group, each group `group` rows.
std::vector<int32_t> rows_by_group(const CodesSource& s) {
  std::vector<int32_t> order(static_cast<size_t>(s.k));
  std::iota(order.begin(), order.end(), 0);
  const int64_t groups = s.k / s.group;
  std::vector<int64_t> members(static_cast<size_t>(groups), 0);
  for (int64_t k = 0; k < s.k; ++k) {
    const int32_t g = s.group_index[k];
    require(g >= 0 && g < groups, "group_index[", k, "] = ", g, " is outside 0..", groups - 1);
    ++members[static_cast<size_t>(g)];
  }
  for (int64_t g = 0; g < groups; ++g) {
    require(members[static_cast<size_t>(g)] == s.group, "group_index: group ", g, " owns ",
            members[static_cast<size_t>(g)], " rows instead of ", s.group);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return s.group_index[a] < s.group_index[b]; });
  if (std::is_sorted(order.begin(), order.end())) order.clear();
  return order;
}

/// [n][k] -> [panel][k][16], padded with zeros.
template <class T>
std::vector<T> transposed_panels(const T* weight, int64_t n, int64_t k) {
  std::vector<T> packed(static_cast<size_t>((n + kPanelWidth - 1) / kPanelWidth * k * kPanelWidth), T{});
  for (int64_t column = 0; column < n; ++column) {
    T* panel = packed.data() + column / kPanelWidth * k * kPanelWidth + column % kPanelWidth;
    for (int64_t i = 0; i < k; ++i) panel[i * kPanelWidth] = weight[column * k + i];
  }
  return packed;
}

/// [rows][n] -> [panel][rows][16], padded with zeros.
template <class T>
std::vector<T> to_panels(const T* source, int64_t rows, int64_t n) {
  const int64_t panels = (n + kPanelWidth - 1) / kPanelWidth;
  std::vector<T> packed(static_cast<size_t>(panels * rows * kPanelWidth), T{});
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < n; ++column) {
      const int64_t to = (column / kPanelWidth * rows + row) * kPanelWidth + column % kPanelWidth;
      packed[static_cast<size_t>(to)] = source[row * n + column];
    }
  }
  return packed;
}

}  // namespace

void PackedWeight::copy_rows(const int64_t* ids, int64_t count, Format out_format, void* out) const {
  require(is_dense(), "copy_rows: the weight is quantized");
  require(out_format == Format::fp32 || out_format == format, "copy_rows: a ", format_name(format), " weight gives no ",
          format_name(out_format), " rows");
  for (int64_t i = 0; i < count; ++i) {
    require(ids[i] >= 0 && ids[i] < n, "copy_rows: row ", ids[i], " of ", n);
    const int64_t column = ids[i] / kPanelWidth * k * kPanelWidth + ids[i] % kPanelWidth;
    for (int64_t j = 0; j < k; ++j) {
      const size_t at = static_cast<size_t>(column + j * kPanelWidth);
      if (format == Format::fp32) {
        static_cast<float*>(out)[i * k + j] = wide[at];
        continue;
      }
      const uint16_t bits = dense[at];
      if (out_format == Format::fp32) {
        static_cast<float*>(out)[i * k + j] = format == Format::bf16 ? bf16_to_float(bits) : half_to_float(bits);
      } else {
        static_cast<uint16_t*>(out)[i * k + j] = bits;
      }
    }
  }
}

int64_t PackedWeight::bytes() const {
  return static_cast<int64_t>(codes.size() + zeros.size() + 2 * scales.size() + 4 * offsets.size() + 2 * dense.size() +
                              4 * wide.size() + 4 * order.size());
}

PackedWeight pack_codes(const CodesSource& s) {
  require(s.n >= 1 && s.k >= 1, "codes: expected at least one row and column, found K = ", s.k, ", N = ", s.n);
  require(s.group >= 1 && s.k % s.group == 0, "K = ", s.k, " is no multiple of the group size ", s.group);
  require(s.scale_format != Format::fp32, "scales must be fp16 or bf16");
  PackedWeight w;
  w.n = s.n, w.k = s.k, w.group = s.group, w.format = s.scale_format;
  if (s.group_index != nullptr) w.order = rows_by_group(s);
  w.codes.assign(static_cast<size_t>(w.panels() * s.k * 8), 0);
  for (int64_t k = 0; k < s.k; ++k) {
    const uint8_t* row = s.codes + (w.order.empty() ? k : w.order[static_cast<size_t>(k)]) * s.n;
    for (int64_t column = 0; column < s.n; ++column) {
      require(row[column] < 16, "code ", int{row[column]}, " in column ", column, " is no 4-bit number");
      const int64_t in_panel = column % kPanelWidth;
      uint8_t& byte = w.codes[static_cast<size_t>((column / kPanelWidth * s.k + k) * 8 + in_panel % 8)];
      byte = static_cast<uint8_t>(byte | row[column] << (in_panel < 8 ? 0 : 4));
    }
  }
  w.zeros = to_panels(s.zeros, s.k / s.group, s.n);
  w.scales = to_panels(s.scales, s.k / s.group, s.n);
  if (s.offsets != nullptr) w.offsets = to_panels(s.offsets, s.k / s.group, s.n);
  for (const uint8_t zero : w.zeros) require(zero < 16, "zero point ", int{zero}, " is no 4-bit number");
  return w;
}

PackedWeight pack_dense(const uint16_t* weight, int64_t n, int64_t k, Format format) {
  require(n >= 1 && k >= 1, "weight: expected at least one row and column, found N = ", n, ", K = ", k);
  require(format != Format::fp32, "dense weights must be fp16 or bf16");
  PackedWeight w;
  w.n = n, w.k = k, w.group = k, w.format = format;
  w.dense = transposed_panels(weight, n, k);
  return w;
}

PackedWeight pack_dense(const float* weight, int64_t n, int64_t k) {
  PackedWeight w;
  w.n = n, w.k = k, w.group = k, w.format = Format::fp32;
  w.wide = transposed_panels(weight, n, k);
  return w;
}

}  // namespace qf
