// Copies into shared memory that a block does not wait for, on Hopper and later (PTX ISA: cp.async, cp.async.bulk,
// mbarrier, griddepcontrol).
#pragma once

#include <cuda.h>

#include <cstdint>

namespace qf::cuda {

__device__ __forceinline__ uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

/// Counts the threads and the bytes that a stage waits for.
struct CopyBarrier {
  uint64_t state;

  __device__ void init(int threads) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(&state)), "r"(threads) : "memory");
  }
  /// One of the threads: arrives, and names the bytes of bulk copies to come.
  __device__ void arrive_expecting(uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(shared_address(&state)), "r"(bytes)
                 : "memory");
  }
  __device__ void arrive() {
    asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(shared_address(&state)) : "memory");
  }
  __device__ void wait(uint32_t parity) const {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
        "@!done bra again;\n"
        "}\n" ::"r"(shared_address(&state)),
        "r"(parity)
        : "memory");
  }
};

/// After init, before anybody uses a barrier: makes it known to the copy engine.
__device__ __forceinline__ void publish_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

/// One thread's copy of `bytes` (a multiple of 16; both ends aligned to 16), counted by the barrier.
__device__ __forceinline__ void copy_bulk(void* shared, const void* global, uint32_t bytes, CopyBarrier& barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(shared)),
               "l"(global), "r"(bytes), "r"(shared_address(&barrier.state))
               : "memory");
}

/// One thread's copy of a box of a two-dimensional array, whose size and swizzle are the map's; what lies outside the
/// array becomes zero.
__device__ __forceinline__ void copy_box(void* shared, const CUtensorMap& map, int x, int y, CopyBarrier& barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
          shared_address(shared)),
      "l"(&map), "r"(x), "r"(y), "r"(shared_address(&barrier.state))
      : "memory");
}

/// Everything that kernels ahead on the stream wrote is visible from here on.
__device__ __forceinline__ void wait_for_earlier_kernels() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
/// The next kernel on the stream may start; it waits by itself for what this one writes.
__device__ __forceinline__ void let_next_kernel_start() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

}  // namespace qf::cuda
