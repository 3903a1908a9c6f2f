// A plan of pieces made ready: what machete and hgemm share.
#pragma once

#include "kernels/native/native_kernels.h"

namespace qf::cuda {

/// Why the kernel of pieces does not serve the plan, whatever its unit; `narrow`: the rounding of its sums.
std::string refuse_pieces(const Plan& plan, Narrow narrow);
std::unique_ptr<NativeCall> prepare_pieces_call(const Plan& plan, Narrow narrow, const Gpu& gpu,
                                                const Allocator& allocator, void* stream);

}  // namespace qf::cuda
