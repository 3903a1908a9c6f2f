// Hopper's warpgroup instruction with the left operand in registers (PTX ISA, "wgmma.mma_async"): 64 columns of weights
// times rows of activations, 16 k. Warp w of the four has strip w of 16 columns; a[0..3] as mma.cuh's m16n8k16.
//
//   fp32 sums   d[4 j], d[4 j + 1]: column lane / 4, rows 8 j + 2 (lane % 4), + 1; d[4 j + 2], d[4 j + 3]: column + 8
//   fp16 sums   d[2 j]: column lane / 4, rows 8 j + 2 (lane % 4), + 1 as one word; d[2 j + 1]: column + 8
#pragma once

#include "kernels/native/wgmma.cuh"

namespace qf::cuda {

/// fp16 numbers and fp16 sums.
struct Fp16Sums {};

/// A thread's accumulators for `kRows` rows of 64 columns.
template <class Unit, int kRows>
struct Sums {
  using Word = float;
  static constexpr int kWords = kRows / 2;
};
template <int kRows>
struct Sums<Fp16Sums, kRows> {
  using Word = uint32_t;
  static constexpr int kWords = kRows / 4;
};

#define QF_INOUT_2(c, d, i) c((d)[i]), c((d)[(i) + 1])
#define QF_INOUT_4(c, d, i) QF_INOUT_2(c, d, i), QF_INOUT_2(c, d, (i) + 2)
#define QF_INOUT_8(c, d, i) QF_INOUT_4(c, d, i), QF_INOUT_4(c, d, (i) + 4)
#define QF_INOUT_16(c, d, i) QF_INOUT_8(c, d, i), QF_INOUT_8(c, d, (i) + 8)
#define QF_INOUT_32(c, d, i) QF_INOUT_16(c, d, i), QF_INOUT_16(c, d, (i) + 16)
#define QF_INOUT_64(c, d, i) QF_INOUT_32(c, d, i), QF_INOUT_32(c, d, (i) + 32)
#define QF_LIST_2 "%0,%1"
#define QF_LIST_4 "%0,%1,%2,%3"
#define QF_LIST_8 "%0,%1,%2,%3,%4,%5,%6,%7"
#define QF_LIST_16 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define QF_LIST_32                                                                                     \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26," \
  "%27,%28,%29,%30,%31"
#define QF_INOUT_128(c, d, i) QF_INOUT_64(c, d, i), QF_INOUT_64(c, d, (i) + 64)
#define QF_LIST_64 QF_NAMES_64
#define QF_LIST_128 QF_NAMES_128

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define QF_WGMMA_LEFT(sum, in, rows, count, c, a0, a1, a2, a3, at)                                    \
  asm volatile("wgmma.mma_async.sync.aligned.m64n" rows "k16." sum "." in "." in " {" QF_LIST_##count \
               "}, {" a0 "," a1 "," a2 "," a3 "}, " at ", 1, 1, 1, 0;"                                \
               : QF_INOUT_##count(c, d, 0)                                                            \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
#else
#define QF_WGMMA_LEFT(sum, in, rows, count, c, a0, a1, a2, a3, at) \
  static_cast<void>(d), static_cast<void>(a), static_cast<void>(b)
#endif

/// d += a b, one step of the matrix unit for every output.
#define QF_WGMMA_LEFT_32(rows, count, a0, a1, a2, a3, at)                                                   \
  __device__ __forceinline__ void wgmma_left(Fp16, float (&d)[count], const uint32_t (&a)[4], uint64_t b) { \
    QF_WGMMA_LEFT("f32", "f16", rows, count, "+f", a0, a1, a2, a3, at);                                     \
  }                                                                                                         \
  __device__ __forceinline__ void wgmma_left(Bf16, float (&d)[count], const uint32_t (&a)[4], uint64_t b) { \
    QF_WGMMA_LEFT("f32", "bf16", rows, count, "+f", a0, a1, a2, a3, at);                                    \
  }
#define QF_WGMMA_LEFT_16(rows, count, a0, a1, a2, a3, at)                                                          \
  __device__ __forceinline__ void wgmma_left(Fp16Sums, uint32_t (&d)[count], const uint32_t (&a)[4], uint64_t b) { \
    QF_WGMMA_LEFT("f16", "f16", rows, count, "+r", a0, a1, a2, a3, at);                                            \
  }
QF_WGMMA_LEFT_32("8", 4, "%4", "%5", "%6", "%7", "%8")
QF_WGMMA_LEFT_32("16", 8, "%8", "%9", "%10", "%11", "%12")
QF_WGMMA_LEFT_32("32", 16, "%16", "%17", "%18", "%19", "%20")
QF_WGMMA_LEFT_32("64", 32, "%32", "%33", "%34", "%35", "%36")
QF_WGMMA_LEFT_32("128", 64, "%64", "%65", "%66", "%67", "%68")
QF_WGMMA_LEFT_32("256", 128, "%128", "%129", "%130", "%131", "%132")
QF_WGMMA_LEFT_16("16", 4, "%4", "%5", "%6", "%7", "%8")
QF_WGMMA_LEFT_16("32", 8, "%8", "%9", "%10", "%11", "%12")
QF_WGMMA_LEFT_16("64", 16, "%16", "%17", "%18", "%19", "%20")
QF_WGMMA_LEFT_16("128", 32, "%32", "%33", "%34", "%35", "%36")
QF_WGMMA_LEFT_16("256", 64, "%64", "%65", "%66", "%67", "%68")

}  // namespace qf::cuda
