// CUDA runtime errors become Error, with the call and what the runtime says of it.
#pragma once

#include <cuda_runtime_api.h>

#include "base/error.h"

namespace qf::cuda {

inline void check(cudaError_t status, const char* what) {
  require(status == cudaSuccess, what, ": ", cudaGetErrorName(status), " (", cudaGetErrorString(status), ")");
}

/// After a launch: errors of the launch itself (a bad configuration, no code for this GPU).
inline void check_launch(const char* kernel) { check(cudaGetLastError(), kernel); }

}  // namespace qf::cuda
