#include "kernels/native/tensor_map.h"

#include <cuda_runtime_api.h>

#include "base/cuda/check.h"

namespace qf::cuda {

CUtensorMap tensor_map(const CopyArray& array) {
  using Encode = decltype(&cuTensorMapEncodeTiled);
  static const Encode encode = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult status{};
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &status),
          "cuTensorMapEncodeTiled");
    require(found != nullptr, "the driver has no cuTensorMapEncodeTiled");
    return reinterpret_cast<Encode>(found);
  }();
  const std::vector<cuuint32_t> steps(array.sizes.size(), 1);
  CUtensorMap map{};
  const CUresult result =
      encode(&map, array.type, static_cast<cuuint32_t>(array.sizes.size()), const_cast<void*>(array.base),
             array.sizes.data(), array.strides.data(), array.box.data(), steps.data(), CU_TENSOR_MAP_INTERLEAVE_NONE,
             array.swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  require(result == CUDA_SUCCESS, "no map for the copy engine (CUDA error ", static_cast<int>(result), ")");
  return map;
}

}  // namespace qf::cuda
