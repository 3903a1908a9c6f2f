// A stream of its own.
#pragma once

#include <cuda_runtime_api.h>

#include "base/cuda/check.h"

namespace qf::cuda {

struct Stream {
  cudaStream_t stream{};
  Stream() { check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate"); }
  ~Stream() { cudaStreamDestroy(stream); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
};

}  // namespace qf::cuda
