// fused_dot_add of rows on a GPU: the definition, a thread per row, for every input format and UnitMethod.
#pragma once

#include "base/cuda/buffer.h"
#include "numerics/unit_arithmetic.h"

namespace qf::cuda {

/// As dot_add_rows (unit_arithmetic.h), which has the same bits; host pointers, and the device's memory from
/// `allocator`. Waits for the result.
void dot_add_rows(const DeviceUnit& unit, const float* a, const float* b, const float* c, int64_t count, int64_t length,
                  float* result, const Allocator& allocator, void* stream);
void dot_add_rows(const float* a, const float* b, const int32_t* c, int64_t count, int64_t length, int32_t* result,
                  const Allocator& allocator, void* stream);

}  // namespace qf::cuda
