// Programmatic dependent launch (CUDA Programming Guide, "Programmatic Dependent Launch and Synchronization"): a
// kernel's blocks may start while the kernel before it on the stream still runs, fetch what is constant (weights), and
// wait for it before they touch anything else.
#pragma once

#include <utility>

#include "base/cuda/check.h"

namespace qf::cuda {

/// Waits until every kernel before this one is complete and its writes are visible.
__device__ __forceinline__ void wait_for_earlier_kernels() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// Lets the next kernel's blocks start where this one leaves room; all blocks of this one have started by then.
__device__ __forceinline__ void let_next_kernel_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

struct LaunchShape {
  dim3 grid, block;
  size_t shared_bytes;
  bool overlapped;  // compute capability 9.0 or newer
};

/// Launches a kernel that calls wait_for_earlier_kernels.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), const LaunchShape& shape, void* stream, const char* name,
            Arguments&&... arguments) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = &attribute;
  config.numAttrs = shape.overlapped ? 1 : 0;
  check(cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...), name);
}

}  // namespace qf::cuda
