// Rounding and storing of results on the device. The conversion instructions round to nearest even and give NaN as
// 0x7FFF.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "base/half.h"
#include "kernels/plan.h"

namespace qf::cuda {

__device__ __forceinline__ uint16_t half_bits(float x) { return __half_as_ushort(__float2half_rn(x)); }
__device__ __forceinline__ uint16_t bf16_bits(float x) { return __bfloat16_as_ushort(__float2bfloat16_rn(x)); }

__device__ __forceinline__ float narrowed(Narrow narrow, float x) {
  switch (narrow) {
    case Narrow::none: return x;
    case Narrow::fp16: return __half2float(__float2half_rn(x));
    case Narrow::bf16: return __bfloat162float(__float2bfloat16_rn(x));
  }
  return x;
}

__device__ __forceinline__ Narrow narrow_for(Format format) {
  return format == Format::fp16 ? Narrow::fp16 : (format == Format::bf16 ? Narrow::bf16 : Narrow::none);
}

/// Bits of fp16 or bf16 as fp32.
__device__ __forceinline__ float widened(Format format, uint16_t bits) {
  return format == Format::bf16 ? bf16_to_float(bits) : half_to_float(bits);
}

__device__ __forceinline__ float load_number(Format format, const void* from, int64_t at) {
  return format == Format::fp32 ? static_cast<const float*>(from)[at]
                                : widened(format, static_cast<const uint16_t*>(from)[at]);
}

__device__ __forceinline__ void store_number(Format format, void* to, int64_t at, float x) {
  switch (format) {
    case Format::fp32: static_cast<float*>(to)[at] = x == x ? x : bits_float(kCanonicalNan); return;
    case Format::fp16: static_cast<uint16_t*>(to)[at] = half_bits(x); return;
    case Format::bf16: static_cast<uint16_t*>(to)[at] = bf16_bits(x); return;
  }
}

}  // namespace qf::cuda
