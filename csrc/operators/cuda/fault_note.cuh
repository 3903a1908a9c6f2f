// How a kernel notes a fault: see faults.h.
#pragma once

#include <cstdint>

namespace qf::cuda {

/// Keeps the lowest row.
__device__ __forceinline__ void note_fault(unsigned long long* slot, int64_t row, int64_t value) {
  const int64_t lowest = -0x80000000ll, highest = 0x7FFFFFFFll;
  const int64_t cut = value < lowest ? lowest : value > highest ? highest : value;
  atomicMin(slot, static_cast<unsigned long long>(row) << 32 | static_cast<uint32_t>(cut));
}

}  // namespace qf::cuda
