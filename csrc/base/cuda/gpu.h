// The GPU of this machine, as far as the rest needs to know it.
#pragma once

#include <cstddef>
#include <string>

namespace qf::cuda {

struct Gpu {
  int index;
  std::string name;        // "NVIDIA H200"
  int compute_capability;  // 90
  int sm_count;
  size_t memory;       // bytes
  int driver_version;  // 13000: CUDA 13.0
};

/// Number of usable GPUs: 0 without a driver.
int gpu_count();
/// Why gpu_count() is 0, or an empty string.
std::string why_no_gpu();
/// Throws Error that says what was found and what is needed: no driver, a driver older than the runtime, no such index,
/// a GPU below compute capability 8.0.
Gpu require_gpu(int index);
/// Bytes that the current device has left.
size_t free_memory();
/// "1.25 GiB of 139.8 GiB free", of the current device.
std::string memory_text();

}  // namespace qf::cuda
