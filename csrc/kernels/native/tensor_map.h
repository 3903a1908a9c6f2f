// Maps of arrays for Hopper's copy engine (CUDA driver API, "Tensor Map Object Management").
#pragma once

#include <cuda.h>

#include <vector>

namespace qf::cuda {

/// An array for the copy engine, innermost dimension first; `strides` in bytes from the second dimension on.
struct CopyArray {
  CUtensorMapDataType type;
  const void* base;
  std::vector<cuuint64_t> sizes, strides;
  std::vector<cuuint32_t> box;
  CUtensorMapSwizzle swizzle;
};

CUtensorMap tensor_map(const CopyArray& array);

}  // namespace qf::cuda
