#include "base/cuda/gpu.h"

#include "base/cuda/check.h"

namespace qf::cuda {
namespace {

constexpr int kLowest = 80;  // the oldest architecture that the build holds code for

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

}  // namespace

int gpu_count() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) cudaGetLastError();
  return status == cudaSuccess ? count : 0;
}

std::string why_no_gpu() {
  int count = 0, driver = 0, runtime = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  cudaGetLastError();
  if (status == cudaSuccess && count > 0) return "";
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  if (driver == 0)
    return "no NVIDIA driver on this machine; a GPU with a driver for CUDA " + version_text(runtime) + " is needed";
  if (status == cudaErrorInsufficientDriver) {
    return "the NVIDIA driver knows CUDA " + version_text(driver) + "; this build needs " + version_text(runtime) +
           " or newer";
  }
  if (status == cudaSuccess) return "the NVIDIA driver shows no GPU";
  return std::string(cudaGetErrorName(status)) + ": " + cudaGetErrorString(status);
}

Gpu require_gpu(int index) {
  const int count = gpu_count();
  require(count > 0, "no GPU: ", why_no_gpu());
  require(index >= 0 && index < count, "GPU ", index, ": this machine has GPUs 0 to ", count - 1);
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
  Gpu gpu{index,
          properties.name,
          properties.major * 10 + properties.minor,
          properties.multiProcessorCount,
          properties.totalGlobalMem,
          0};
  cudaDriverGetVersion(&gpu.driver_version);
  require(gpu.compute_capability >= kLowest, gpu.name, " has compute capability ", gpu.compute_capability / 10, ".",
          gpu.compute_capability % 10, "; this build needs ", kLowest / 10, ".", kLowest % 10, " or newer");
  return gpu;
}

size_t free_memory() {
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return free;
}

std::string memory_text() {
  size_t free = 0, total = 0;
  if (cudaMemGetInfo(&free, &total) != cudaSuccess) return "free memory unknown";
  const auto gib = [](size_t bytes) {
    const size_t hundredths = bytes / ((size_t{1} << 30) / 100);
    const std::string cents = std::to_string(hundredths % 100);
    return std::to_string(hundredths / 100) + (cents.size() == 1 ? ".0" : ".") + cents + " GiB";
  };
  return gib(free) + " of " + gib(total) + " free";
}

}  // namespace qf::cuda
