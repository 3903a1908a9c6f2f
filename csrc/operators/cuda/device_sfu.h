// The special-function tables on a GPU.
#pragma once

#include "base/cuda/buffer.h"
#include "numerics/special_function_unit.h"

namespace qf::cuda {

/// A copy of a host's tables. lg2's are there where the host has them.
class DeviceSfu {
 public:
  /// The allocator outlives it.
  DeviceSfu(const SfuView& host, const Allocator& allocator, void* stream);
  /// Device pointers.
  SfuView view() const { return view_; }

 private:
  static constexpr int kCurves = 4;
  struct LogTables {
    Buffer<uint32_t> nearest, first;
    Buffer<int8_t> residual;
  };
  LogTables upload_log(const SfuLogCurve& host, SfuLogCurve& device, const Allocator& allocator, void* stream);

  Buffer<SfuPiece> pieces_[kCurves];
  Buffer<uint64_t> carries_[kCurves];
  LogTables above_, below_;
  SfuView view_{};
};

}  // namespace qf::cuda
