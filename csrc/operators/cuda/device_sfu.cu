#include "operators/cuda/device_sfu.h"

#include "base/cuda/check.h"
#include "operators/cuda/sfu_choice.cuh"

namespace qf::cuda {
namespace {

constexpr size_t kEntries = size_t{1} << 23;

/// Differing results over all inputs.
__global__ void compare_units(SfuView tables, unsigned long long* wrong) {
  const OwnUnitSfu own;
  const uint64_t step = static_cast<uint64_t>(gridDim.x) * blockDim.x;
  unsigned long long count = 0;
  for (uint64_t i = blockIdx.x * static_cast<uint64_t>(blockDim.x) + threadIdx.x; i < (uint64_t{1} << 32); i += step) {
    const float x = bits_float(static_cast<uint32_t>(i));
    count += float_bits(own.ex2(x)) != float_bits(tables.ex2(x));
    count += float_bits(own.rcp(x)) != float_bits(tables.rcp(x));
    count += float_bits(own.rsqrt(x)) != float_bits(tables.rsqrt(x));
  }
  if (count > 0) atomicAdd(wrong, count);
}

bool units_are_equal(const SfuView& tables, const Allocator& allocator, void* stream) {
  unsigned long long wrong = 0;
  const Buffer<unsigned long long> counter = upload(allocator, &wrong, 1, stream);
  compare_units<<<4096, 256, 0, static_cast<cudaStream_t>(stream)>>>(tables, counter.data());
  check_launch("compare_units");
  copy_to_host(&wrong, counter.data(), sizeof wrong, stream);
  return wrong == 0;
}

}  // namespace

DeviceSfu::DeviceSfu(const SfuView& host, OwnSfu own, const Allocator& allocator, void* stream) {
  const auto put = [&](Curve& mine, const SfuCurve& curve) -> SfuCurve {
    mine.pieces = upload(allocator, curve.pieces, kEntries >> 16, stream);
    mine.carries = upload(allocator, curve.carries, kEntries >> 6, stream);
    return {mine.pieces.data(), mine.carries.data()};
  };
  const auto put_log = [&](LogCurve& mine, const SfuLogCurve& curve) -> SfuLogCurve {
    mine.nearest = upload(allocator, curve.nearest, size_t{1} << 19, stream);
    mine.first = upload(allocator, curve.first, (kEntries >> 6) + 1, stream);
    mine.residual = upload(allocator, curve.residual, kEntries, stream);
    return {mine.nearest.data(), mine.first.data(), mine.residual.data()};
  };
  view_.ex2_curve = put(ex2_, host.ex2_curve);
  view_.rcp_curve = put(rcp_, host.rcp_curve);
  view_.rsqrt_even = put(rsqrt_even_, host.rsqrt_even);
  view_.rsqrt_odd = put(rsqrt_odd_, host.rsqrt_odd);
  if (host.has_lg2()) {
    view_.lg2_above = put_log(lg2_above_, host.lg2_above);
    view_.lg2_below = put_log(lg2_below_, host.lg2_below);
  }
  if (own == OwnSfu::when_equal) own_is_equal_ = units_are_equal(view_, allocator, stream);
}

}  // namespace qf::cuda
