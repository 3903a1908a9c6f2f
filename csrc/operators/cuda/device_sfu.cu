#include "operators/cuda/device_sfu.h"

namespace qf::cuda {

DeviceSfu::LogTables DeviceSfu::upload_log(const SfuLogCurve& host, SfuLogCurve& device, const Allocator& allocator,
                                           void* stream) {
  LogTables tables;
  if (host.first == nullptr) return tables;
  tables.nearest = upload(allocator, host.nearest, size_t{1} << 19, stream);
  tables.first = upload(allocator, host.first, (size_t{1} << 17) + 1, stream);
  tables.residual = upload(allocator, host.residual, size_t{1} << 23, stream);
  device = {tables.nearest.data(), tables.first.data(), tables.residual.data()};
  return tables;
}

DeviceSfu::DeviceSfu(const SfuView& host, const Allocator& allocator, void* stream) {
  const SfuCurve* from[kCurves] = {&host.ex2_curve, &host.rcp_curve, &host.rsqrt_even, &host.rsqrt_odd};
  SfuCurve* to[kCurves] = {&view_.ex2_curve, &view_.rcp_curve, &view_.rsqrt_even, &view_.rsqrt_odd};
  for (int i = 0; i < kCurves; ++i) {
    pieces_[i] = upload(allocator, from[i]->pieces, 128, stream);
    carries_[i] = upload(allocator, from[i]->carries, size_t{1} << 17, stream);
    *to[i] = {pieces_[i].data(), carries_[i].data()};
  }
  above_ = upload_log(host.lg2_above, view_.lg2_above, allocator, stream);
  below_ = upload_log(host.lg2_below, view_.lg2_below, allocator, stream);
}

}  // namespace qf::cuda
