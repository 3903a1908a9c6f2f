// Hopper's warpgroup instruction over operands in shared memory (PTX ISA, "wgmma.mma_async"), 16 k at a time.
//
// An operand lies as rows of 64 k (128 bytes); 8 rows are one swizzled block of 1,024 bytes: the 16-byte cell c of row
// r is at cell c ^ (r % 8). Tiles begin at multiples of 1,024.
//
//   accumulators of m64nN: warp w of the four has rows 16 w + lane / 4 (and + 8); d[4 j], d[4 j + 1]: columns
//   8 j + 2 (lane % 4), + 1; d[4 j + 2], d[4 j + 3]: the same columns, row + 8
#pragma once

#include <cstdint>

#include "numerics/cuda/mma.cuh"

namespace qf::cuda {

/// The descriptor of a tile: 128-byte swizzle, 1,024 bytes from one group of 8 rows to the next.
__device__ __forceinline__ uint64_t tile_descriptor(const void* shared) {
  const auto address = static_cast<uint64_t>(__cvta_generic_to_shared(shared));
  return (address & 0x3FFFF) >> 4 | uint64_t{1} << 16 | uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62;
}
constexpr uint64_t kNext16 = 32 >> 4;  // 16 k further in a descriptor

__device__ __forceinline__ int swizzled(int row, int cell) { return row * 128 + ((cell ^ (row % 8)) * 16); }

#define QF_OUT_4(d, i) "+f"((d)[i]), "+f"((d)[(i) + 1]), "+f"((d)[(i) + 2]), "+f"((d)[(i) + 3])
#define QF_OUT_16(d, i) QF_OUT_4(d, i), QF_OUT_4(d, (i) + 4), QF_OUT_4(d, (i) + 8), QF_OUT_4(d, (i) + 12)
#define QF_OUT_64(d, i) QF_OUT_16(d, i), QF_OUT_16(d, (i) + 16), QF_OUT_16(d, (i) + 32), QF_OUT_16(d, (i) + 48)
#define QF_NAMES_64                                                                                          \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,"   \
  "%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53," \
  "%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define QF_NAMES_128                                                                                          \
  QF_NAMES_64                                                                                                 \
  ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89," \
  "%90,%91,%92,%93,%94,%95,%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,%112," \
  "%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define QF_WGMMA(kind, columns, names, outputs, a, b, ia, ib)                                                   \
  asm volatile("wgmma.mma_async.sync.aligned.m64n" columns "k16.f32." kind "." kind " {" names "}, " ia ", " ib \
               ", 1, 1, 1, 0, 0;"                                                                               \
               : outputs                                                                                        \
               : "l"(a), "l"(b))
#else
#define QF_WGMMA(kind, columns, names, outputs, a, b, ia, ib) static_cast<void>(a), static_cast<void>(b)
#endif

/// d += a b, one step of the matrix unit for every output.
__device__ __forceinline__ void wgmma(Fp16, float (&d)[64], uint64_t a, uint64_t b) {
  QF_WGMMA("f16", "128", QF_NAMES_64, QF_OUT_64(d, 0), a, b, "%64", "%65");
}
__device__ __forceinline__ void wgmma(Bf16, float (&d)[64], uint64_t a, uint64_t b) {
  QF_WGMMA("bf16", "128", QF_NAMES_64, QF_OUT_64(d, 0), a, b, "%64", "%65");
}
#define QF_OUT_128(d) QF_OUT_64(d, 0), QF_OUT_64(d, 64)
__device__ __forceinline__ void wgmma(Fp16, float (&d)[128], uint64_t a, uint64_t b) {
  QF_WGMMA("f16", "256", QF_NAMES_128, QF_OUT_128(d), a, b, "%128", "%129");
}
__device__ __forceinline__ void wgmma(Bf16, float (&d)[128], uint64_t a, uint64_t b) {
  QF_WGMMA("bf16", "256", QF_NAMES_128, QF_OUT_128(d), a, b, "%128", "%129");
}

/// Registers and shared memory are as the next wgmma expects them.
__device__ __forceinline__ void wgmma_begin() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
__device__ __forceinline__ void wgmma_end() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}
/// Waits until all but the newest kPending groups are complete.
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
#endif
}
/// What this thread has written to shared memory becomes visible to wgmma (after a barrier).
__device__ __forceinline__ void publish_to_wgmma() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

}  // namespace qf::cuda
