// Loads of the native kernels, and codes taken out of words.
#pragma once

#include <cstdint>

namespace qf::cuda {

/// Weights are read once: they pass the first-level cache by. Nothing happens unless `wanted`.
__device__ __forceinline__ void load_once(uint4& v, const uint4* from, bool wanted) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %5, 0;\n"
      "@p ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4]; }"
      : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w)
      : "l"(from), "r"(static_cast<int>(wanted)));
}
__device__ __forceinline__ void load_four(uint4& v, const void* from, bool wanted) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %5, 0;\n"
      "@p ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4]; }"
      : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w)
      : "l"(from), "r"(static_cast<int>(wanted)));
}
__device__ __forceinline__ void load_pair(uint2& v, const void* from, bool wanted) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %3, 0;\n"
      "@p ld.global.nc.v2.u32 {%0, %1}, [%2]; }"
      : "+r"(v.x), "+r"(v.y)
      : "l"(from), "r"(static_cast<int>(wanted)));
}

/// 16 bytes, of which the first `bytes` are read and the others zero; by cp.async.
__device__ __forceinline__ void copy_to_shared(void* shared, const void* global, int bytes) {
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(bytes) : "memory");
}

/// The same past the first-level cache.
__device__ __forceinline__ void copy_past_cache(void* shared, const void* global, int bytes) {
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(bytes) : "memory");
}

/// (bits & mask) | exponent, in one instruction.
template <uint32_t kMask, uint32_t kExponent>
__device__ __forceinline__ uint32_t nibbles(uint32_t bits) {
  uint32_t exponent, out;
  asm("mov.b32 %0, %1;" : "=r"(exponent) : "n"(kExponent));
  asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(out) : "r"(bits), "n"(kMask), "r"(exponent));
  return out;
}

/// Brings `bytes` (a multiple of 16, from an address of that) to the second-level cache; nothing waits for it. One
/// thread asks. Hopper and later (PTX ISA: cp.async.bulk.prefetch).
__device__ __forceinline__ void prefetch_to_cache(const void* from, int bytes) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
#endif
}

__device__ __forceinline__ uint32_t word_of(const uint4& v, int i) {
  return i == 0 ? v.x : (i == 1 ? v.y : (i == 2 ? v.z : v.w));
}

}  // namespace qf::cuda
