// The first GPU that this process sees, as a backend: emulated or native GEMMs, operators, memory of torch's.
#pragma once

#include <memory>

#include "engine/backend.h"

namespace qf {

/// native: plans that a native kernel serves run by it, the others by the emulator. Throws Error where there is no GPU
/// that can be used, or no torch that has CUDA.
std::unique_ptr<Backend> make_cuda_backend(const OperatorSet& operators, bool native);

}  // namespace qf
