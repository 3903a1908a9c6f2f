#include "kernels/emulate/cuda/device_weight.h"

namespace qf::cuda {

DeviceWeight upload_weight(const PackedWeight& weight, const Allocator& allocator, void* stream) {
  const auto copy = [&](const auto& host) { return upload(allocator, host.data(), host.size(), stream); };
  DeviceWeight out;
  out.n = weight.n;
  out.k = weight.k;
  out.group = weight.group;
  out.format = weight.format;
  out.codes = copy(weight.codes);
  out.zeros = copy(weight.zeros);
  out.scales = copy(weight.scales);
  out.dense = copy(weight.dense);
  out.offsets = copy(weight.offsets);
  out.wide = copy(weight.wide);
  out.order = copy(weight.order);
  return out;
}

}  // namespace qf::cuda
