// One tensor core instruction per function (PTX ISA, "mma.sync"). A lane is g = lane / 4, t = lane % 4.
//
//   m16n8k16   a[0]: row g, k 2t..   a[1]: row g + 8, k 2t..   a[2]: row g, k 8 + 2t..   a[3]: row g + 8, k 8 + 2t..
//              b[0]: k 2t.., column g   b[1]: k 8 + 2t.., column g
//              c[0], c[1]: row g, columns 2t, 2t + 1   c[2], c[3]: row g + 8
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

namespace qf::cuda {

struct Fp16 {};
struct Bf16 {};

template <class T>
struct IsHalf {
  static constexpr bool value = false;
};
template <>
struct IsHalf<Fp16> {
  static constexpr bool value = true;
};

__device__ __forceinline__ void mma(Fp16, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                    const float (&c)[4]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}

__device__ __forceinline__ void mma(Bf16, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                    const float (&c)[4]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}

/// fp16 accumulators, as words of two columns.
__device__ __forceinline__ void mma_half(uint32_t (&d)[2], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                         const uint32_t (&c)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%0,%1}, {%2,%3,%4,%5}, {%6,%7}, {%8,%9};"
               : "=r"(d[0]), "=r"(d[1])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(c[0]), "r"(c[1]));
}

/// Accumulator = float, or Fp16: c and d hold fp16 numbers, and the instruction rounds to fp16.
template <class Accumulator, class Format>
__device__ __forceinline__ void mma_into(Format format, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                         const float (&c)[4]) {
  if constexpr (IsHalf<Accumulator>::value) {
    const __half2 low = __floats2half2_rn(c[0], c[1]), high = __floats2half2_rn(c[2], c[3]);
    const uint32_t before[2] = {*reinterpret_cast<const uint32_t*>(&low), *reinterpret_cast<const uint32_t*>(&high)};
    uint32_t after[2];
    mma_half(after, a, b, before);
    const float2 first = __half22float2(*reinterpret_cast<const __half2*>(&after[0]));
    const float2 second = __half22float2(*reinterpret_cast<const __half2*>(&after[1]));
    d[0] = first.x, d[1] = first.y, d[2] = second.x, d[3] = second.y;
  } else {
    mma(format, d, a, b, c);
  }
}

}  // namespace qf::cuda
