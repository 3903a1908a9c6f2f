// The first GPU that this process sees, as a backend: emulated GEMMs and operators, memory of torch's.
#pragma once

#include <memory>

#include "engine/backend.h"

namespace qf {

/// Throws Error where there is no GPU that can be used, or no torch that has CUDA.
std::unique_ptr<Backend> make_cuda_backend(const OperatorSet& operators);

}  // namespace qf
