// Eight codes of a word become the left operand of one instruction: RN16((q - z) * s), one rounding.
//
// A code in the low mantissa bits of a power of two is a number: 1024 + q in fp16, 128 + q in bf16. Taking 1024 + z
// from it leaves q - z without error; the multiplication rounds. In fp16 the upper nibble of a byte is used where it
// lies, as (1024 + 16 q) / 16 - (64 + z), also exact.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "numerics/cuda/mma.cuh"

namespace qf::cuda {

/// (a & mask) | bits, one instruction.
__device__ __forceinline__ uint32_t masked_or(uint32_t a, uint32_t mask, uint32_t bits) {
  uint32_t out;
  asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(out) : "r"(a), "r"(mask), "r"(bits));
  return out;
}

template <class Number>
struct Pair;

template <>
struct Pair<Fp16> {
  using Type = __half2;
};
template <>
struct Pair<Bf16> {
  using Type = __nv_bfloat162;
};

template <class Number>
__device__ __forceinline__ typename Pair<Number>::Type as_pair(uint32_t bits) {
  return *reinterpret_cast<const typename Pair<Number>::Type*>(&bits);
}
template <class P>
__device__ __forceinline__ uint32_t pair_bits(P pair) {
  return *reinterpret_cast<const uint32_t*>(&pair);
}

/// What a lane's two columns (g and g + 8 of a strip) need of a group.
template <class Number>
struct LaneGroup {
  typename Pair<Number>::Type scale[2];
  typename Pair<Number>::Type zero[2];  // with the power of two of its nibble; fp16's second one is negative

  __device__ __forceinline__ void set_scales(uint32_t scales) {
    scale[0] = as_pair<Number>(__byte_perm(scales, 0, 0x1010));
    scale[1] = as_pair<Number>(__byte_perm(scales, 0, 0x3232));
  }
  /// zeros: the half-word of marlin_layout.h.
  __device__ __forceinline__ void set_zeros(uint32_t zeros);
  __device__ __forceinline__ void set_zeros_to_eight();
  __device__ __forceinline__ void weights(uint32_t codes, uint32_t (&out)[4]) const;
};

template <>
__device__ __forceinline__ void LaneGroup<Fp16>::set_zeros(uint32_t zeros) {
  zero[0] = as_pair<Fp16>(__byte_perm(zeros, 0xD464u, 0x4040));  // 1024 + z
  zero[1] = as_pair<Fp16>(__byte_perm(zeros, 0xD464u, 0x5151));  // -(64 + z): z is stored as 16 z
}
template <>
__device__ __forceinline__ void LaneGroup<Fp16>::set_zeros_to_eight() {
  zero[0] = as_pair<Fp16>(0x64086408u);
  zero[1] = as_pair<Fp16>(0xD480D480u);
}
template <>
__device__ __forceinline__ void LaneGroup<Fp16>::weights(uint32_t codes, uint32_t (&out)[4]) const {
  const __half2 sixteenth = as_pair<Fp16>(0x2C002C00u);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const __half2 low = as_pair<Fp16>(masked_or(codes, 0x000F000Fu, 0x64006400u));
    const __half2 high = as_pair<Fp16>(masked_or(codes, 0x00F000F0u, 0x64006400u));
    out[2 * i] = pair_bits(__hmul2_rn(__hsub2_rn(low, zero[0]), scale[0]));
    out[2 * i + 1] = pair_bits(__hmul2_rn(__hfma2(high, sixteenth, zero[1]), scale[1]));
    codes >>= 8;
  }
}

template <>
__device__ __forceinline__ void LaneGroup<Bf16>::set_zeros(uint32_t zeros) {
  zero[0] = as_pair<Bf16>(__byte_perm(zeros, 0x4300u, 0x5050));  // 128 + z
  zero[1] = as_pair<Bf16>(__byte_perm(zeros, 0x4300u, 0x5151));
}
template <>
__device__ __forceinline__ void LaneGroup<Bf16>::set_zeros_to_eight() {
  zero[0] = zero[1] = as_pair<Bf16>(0x43084308u);
}
template <>
__device__ __forceinline__ void LaneGroup<Bf16>::weights(uint32_t codes, uint32_t (&out)[4]) const {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const __nv_bfloat162 number = as_pair<Bf16>(masked_or(codes >> (4 * i), 0x000F000Fu, 0x43004300u));
    out[i] = pair_bits(__hmul2_rn(__hsub2_rn(number, zero[i % 2]), scale[i % 2]));
  }
}

/// sum = weights (16 columns x 16 k) times activations (16 k x 8 rows) + sum: one step of the unit. As mma.cuh, but
/// free to be moved by the compiler: it has no effect beside its result.
__device__ __forceinline__ void step(Fp16, float (&sum)[4], const uint32_t (&w)[4], uint32_t x0, uint32_t x1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(w[0]), "r"(w[1]), "r"(w[2]), "r"(w[3]), "r"(x0), "r"(x1));
}
__device__ __forceinline__ void step(Bf16, float (&sum)[4], const uint32_t (&w)[4], uint32_t x0, uint32_t x1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(w[0]), "r"(w[1]), "r"(w[2]), "r"(w[3]), "r"(x0), "r"(x1));
}

}  // namespace qf::cuda
