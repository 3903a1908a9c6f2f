// The special-function unit's tables on a device, and whether the device's own unit gives the same results.
#pragma once

#include "base/cuda/buffer.h"
#include "numerics/special_function_unit.h"

namespace qf::cuda {

/// When operators may ask the GPU's own unit instead of the tables.
enum class OwnSfu : uint8_t { never, when_equal };

class DeviceSfu {
 public:
  /// Copies the tables (lg2's where there are any). when_equal: compares the own unit's ex2, rcp and rsqrt with them,
  /// over all 2^32 inputs.
  DeviceSfu(const SfuView& host, OwnSfu own, const Allocator& allocator, void* stream);

  /// Device pointers.
  const SfuView& tables() const { return view_; }
  /// The own unit gives the tables' bits for every input of ex2, rcp and rsqrt.
  bool own_is_equal() const { return own_is_equal_; }

 private:
  struct Curve {
    Buffer<SfuPiece> pieces;
    Buffer<uint64_t> carries;
  };
  struct LogCurve {
    Buffer<uint32_t> nearest, first;
    Buffer<int8_t> residual;
  };
  Curve ex2_, rcp_, rsqrt_even_, rsqrt_odd_;
  LogCurve lg2_above_, lg2_below_;
  SfuView view_{};
  bool own_is_equal_ = false;
};

}  // namespace qf::cuda
