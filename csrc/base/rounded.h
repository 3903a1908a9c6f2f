// fp32 multiplication and addition that no compiler merges into a fused one. The host is built with -ffp-contract=off;
// nvcc contracts by default, so device code asks for each rounding by name.
#pragma once
// nvcc: x[0] = qf::add_rn(qf::mul_rn(x[1], x[2]), x[3]);

#include "base/host_device.h"

namespace qf {

QF_HD_INLINE float mul_rn(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

QF_HD_INLINE float add_rn(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(a, b);
#else
  return a + b;
#endif
}

}  // namespace qf
