// Torch's device memory and stream, reached without a CUDA header: the same source serves a torch with and one without
// CUDA.
#pragma once

#include "base/cuda/buffer.h"

namespace qf {

/// Throws Error unless this process' torch has CUDA. Starts torch's part of it.
void require_torch_cuda();

/// Torch's caching allocator. Memory comes in the order of torch's current stream, which is also `current_stream`.
cuda::Allocator torch_allocator();
/// The cudaStream_t of torch's current stream of the first GPU.
void* current_stream();
/// Gives back what torch keeps of freed memory.
void empty_cache();

}  // namespace qf
