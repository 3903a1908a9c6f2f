#include "kernels/emulate/cuda/device_weight.h"

#include "base/cuda/check.h"
#include "base/error.h"
#include "kernels/emulate/cuda/narrow.cuh"

namespace qf::cuda {
namespace {

constexpr int kThreads = 256;

struct RowSource {
  const uint16_t* dense;
  const float* wide;
  Format format;
  int64_t k;

  __device__ int64_t at(int64_t id, int64_t i) const {
    return (id / kPanelWidth * k + i) * kPanelWidth + id % kPanelWidth;
  }
};

template <class Number>
__global__ void copy_rows_kernel(RowSource from, const int64_t* ids, Number* out) {
  const int64_t row = blockIdx.x;
  for (int64_t i = threadIdx.x; i < from.k; i += kThreads) {
    const int64_t at = from.at(ids[row], i);
    if constexpr (sizeof(Number) == 2) {
      out[row * from.k + i] = from.dense[at];
    } else {
      out[row * from.k + i] = from.wide != nullptr ? from.wide[at] : widened(from.format, from.dense[at]);
    }
  }
}

}  // namespace

void copy_rows(const DeviceWeight& weight, const int64_t* ids, int64_t count, Format format, void* out, void* stream) {
  require(weight.is_dense(), "rows of a weight of codes are not copied");
  require(format == Format::fp32 || (weight.wide.size() == 0 && format == weight.format), "rows of ",
          format_name(weight.format), " numbers as ", format_name(format));
  if (count == 0) return;
  const RowSource from{weight.dense.data(), weight.wide.data(), weight.format, weight.k};
  const auto s = static_cast<cudaStream_t>(stream);
  const auto grid = static_cast<unsigned>(count);
  if (format == Format::fp32) {
    copy_rows_kernel<<<grid, kThreads, 0, s>>>(from, ids, static_cast<float*>(out));
  } else {
    copy_rows_kernel<<<grid, kThreads, 0, s>>>(from, ids, static_cast<uint16_t*>(out));
  }
  check_launch("copy_rows");
}

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
