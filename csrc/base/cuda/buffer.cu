#include "base/cuda/buffer.h"

#include "base/cuda/check.h"

namespace qf::cuda {
namespace {

void* allocate(size_t bytes, void* stream) {
  void* pointer = nullptr;
  const cudaError_t status = cudaMallocAsync(&pointer, bytes, static_cast<cudaStream_t>(stream));
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // not sticky: the next call must not see it
    size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    throw Error("out of device memory: " + std::to_string(bytes) + " bytes asked, " + std::to_string(free) + " of " +
                std::to_string(total) + " free");
  }
  check(status, "cudaMallocAsync");
  return pointer;
}

void release(void* pointer, void* stream) { cudaFreeAsync(pointer, static_cast<cudaStream_t>(stream)); }

}  // namespace

const Allocator& runtime_allocator() {
  static const Allocator allocator{allocate, release};
  return allocator;
}

void keep_freed_memory() {
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  cudaMemPool_t pool = nullptr;
  check(cudaDeviceGetDefaultMemPool(&pool, device), "cudaDeviceGetDefaultMemPool");
  uint64_t threshold = UINT64_MAX;
  check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &threshold), "cudaMemPoolSetAttribute");
}

void copy_to_device(void* device, const void* host, size_t bytes, void* stream) {
  // pageable memory: the runtime has taken its copy when the call returns
  check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, static_cast<cudaStream_t>(stream)),
        "copy to the device");
}

void copy_to_host(void* host, const void* device, size_t bytes, void* stream) {
  const auto s = static_cast<cudaStream_t>(stream);
  check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, s), "copy to the host");
  check(cudaStreamSynchronize(s), "wait for the device");
}

}  // namespace qf::cuda
