// Special functions inside flash attention's kernels: the GPU's own unit where it is known to give the tables' bits.
#pragma once

#include "operators/cuda/sfu_choice.cuh"

namespace qf::cuda {

/// Chosen at run time: what flash attention takes of it is little beside its products.
struct FlashSfu {
  const SfuView& tables;
  bool own;

  QF_HD_INLINE float ex2(float x) const {
#ifdef __CUDA_ARCH__
    if (own) return OwnUnitSfu{}.ex2(x);
#endif
    return tables.ex2(x);
  }
  QF_HD_INLINE float rcp(float x) const {
#ifdef __CUDA_ARCH__
    if (own) return OwnUnitSfu{}.rcp(x);
#endif
    return tables.rcp(x);
  }
  QF_HD_INLINE float lg2(float x) const { return tables.lg2(x); }
};

}  // namespace qf::cuda
