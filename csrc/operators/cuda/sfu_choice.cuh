// The two ways to a special function's value in a kernel: tables, or the GPU's own unit where it is known to equal
// them.
#pragma once

#include "operators/cuda/device_sfu.h"

namespace qf::cuda {

/// The own unit (PTX ISA: ex2, rcp, rsqrt `.approx.ftz.f32`), with the function names of SfuView.
struct OwnUnitSfu {
  __device__ __forceinline__ float ex2(float x) const {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }
  __device__ __forceinline__ float rcp(float x) const {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }
  __device__ __forceinline__ float rsqrt(float x) const {
    float y;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }
};

/// run(SfuView) or run(OwnUnitSfu): the argument of a kernel.
template <class Run>
void with_sfu(const DeviceSfu& sfu, const Run& run) {
  if (sfu.own_is_equal()) {
    run(OwnUnitSfu{});
  } else {
    run(sfu.tables());
  }
}

}  // namespace qf::cuda
