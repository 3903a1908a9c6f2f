#include "engine/cuda/torch_memory.h"

#include <ATen/Context.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/version.h>

#include "base/error.h"

namespace qf {

void require_torch_cuda() {
  require(at::Context::hasCUDA(), "this process has a torch without CUDA (built against torch ", TORCH_VERSION,
          "); a build of torch with CUDA is needed");
  at::globalContext().lazyInitDevice(at::kCUDA);
}

cuda::Allocator torch_allocator() {
  c10::Allocator* torch = c10::GetAllocator(at::kCUDA);
  require(torch != nullptr && torch->raw_deleter() != nullptr, "torch's CUDA allocator gives no plain memory");
  return {[torch](size_t bytes, void*) { return torch->raw_allocate(bytes); },
          [torch](void* pointer, void*) { torch->raw_deallocate(pointer); }};
}

void* current_stream() {
  const c10::impl::VirtualGuardImpl guard(at::kCUDA);
  return guard.getStreamNativeHandle(guard.getStream(at::Device(at::kCUDA, 0)));
}

void empty_cache() { at::getDeviceAllocator(at::kCUDA)->emptyCache(); }

}  // namespace qf
