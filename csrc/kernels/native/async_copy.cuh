// Copies into shared memory that a block does not wait for, on Hopper and later (PTX ISA:
// cp.async.bulk.tensor, mbarrier, griddepcontrol), and clusters.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "base/cuda/overlap.cuh"

namespace qf::cuda {

__device__ __forceinline__ uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

/// Counts the threads and the bytes that a stage waits for: eight bytes of shared memory.
struct CopyBarrier {
  uint32_t at;

  __device__ void init(int threads) const {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(at), "r"(threads) : "memory");
  }
  /// One of the threads: arrives, and names the bytes of copies to come.
  __device__ void arrive_expecting(uint32_t bytes) const {
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(at), "r"(bytes) : "memory");
  }
  __device__ void arrive() const { asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(at) : "memory"); }
  __device__ void wait(uint32_t parity) const {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
        "@!done bra again;\n"
        "}\n" ::"r"(at),
        "r"(parity)
        : "memory");
  }
};

/// After init, before anybody uses a barrier: makes it known to the copy engine.
__device__ __forceinline__ void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

/// One thread's copy of a box of a three- or four-dimensional array whose size, strides and swizzle are the map's. What
/// lies outside the array becomes zero; the barrier counts the whole box.
__device__ __forceinline__ void copy_box(uint32_t shared, const CUtensorMap& map, int x, int y, int z,
                                         const CopyBarrier& barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], "
      "[%5];" ::"r"(shared),
      "l"(&map), "r"(x), "r"(y), "r"(z), "r"(barrier.at)
      : "memory");
}
__device__ __forceinline__ void copy_box(uint32_t shared, const CUtensorMap& map, int x, int y, int z, int w,
                                         const CopyBarrier& barrier) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], "
      "[%6];" ::"r"(shared),
      "l"(&map), "r"(x), "r"(y), "r"(z), "r"(w), "r"(barrier.at)
      : "memory");
}

/// One thread's copy of `bytes` that lie together, a multiple of 16 at multiples of 16.
__device__ __forceinline__ void copy_bytes(uint32_t shared, const void* global, uint32_t bytes,
                                           const CopyBarrier& barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared),
               "l"(global), "r"(bytes), "r"(barrier.at)
               : "memory");
}

/// Waits for the other warps of a set; sets have ids from 1 to 15. What they stored before is visible after.
__device__ __forceinline__ void meet(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/// The same place in the shared memory of another block of the cluster.
__device__ __forceinline__ const float* in_block(const float* shared, int rank) {
  const float* there;
  asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(shared), "r"(rank));
  return there;
}
/// All threads of all blocks of the cluster; what they wrote before is visible after.
__device__ __forceinline__ void meet_cluster() {
  asm volatile("barrier.cluster.arrive.release;" ::: "memory");
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}
/// The same for blocks that only wait for each other: nothing that was written need be visible.
__device__ __forceinline__ void leave_cluster() {
  asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
  asm volatile("barrier.cluster.wait;" ::: "memory");
}

}  // namespace qf::cuda
