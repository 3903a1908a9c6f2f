// A PackedWeight on a GPU: the same layouts (kernels/pack/packed_weight.h).
#pragma once

#include "base/cuda/buffer.h"
#include "kernels/pack/packed_weight.h"

namespace qf::cuda {

struct DeviceWeight {
  int64_t n = 0, k = 0, group = 0;
  Format format = Format::fp16;
  Buffer<uint8_t> codes, zeros;
  Buffer<uint16_t> scales, dense;
  Buffer<float> offsets, wide;
  Buffer<int32_t> order;

  bool is_dense() const { return dense.size() > 0 || wide.size() > 0; }
  int64_t groups() const { return k / group; }
  int64_t panels() const { return (n + kPanelWidth - 1) / kPanelWidth; }
  size_t bytes() const {
    return codes.bytes() + zeros.bytes() + scales.bytes() + dense.bytes() + offsets.bytes() + wide.bytes() +
           order.bytes();
  }
};

DeviceWeight upload_weight(const PackedWeight& weight, const Allocator& allocator, void* stream);

/// PackedWeight::copy_rows on the device: rows ids[0 .. count) of a dense weight, which lie inside it, into out,
/// [count][k] in `format` (fp32, or the weight's own).
void copy_rows(const DeviceWeight& weight, const int64_t* ids, int64_t count, Format format, void* out, void* stream);

}  // namespace qf::cuda
