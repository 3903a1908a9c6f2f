// Activations as they are stored, read and written in vectors: 16 bytes at once where addresses allow, else one by one.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "base/error.h"
#include "operators/context.h"

namespace qf::cuda {

/// The hardware's conversions: nearest even, every NaN becomes 0x7FFF.
struct StoredHalf {
  using Word = uint16_t;
  static __device__ __forceinline__ float widen(Word word) { return __half2float(__ushort_as_half(word)); }
  static __device__ __forceinline__ Word narrow(float x) { return __half_as_ushort(__float2half_rn(x)); }
};
struct StoredBf16 {
  using Word = uint16_t;
  static __device__ __forceinline__ float widen(Word word) { return bits_float(static_cast<uint32_t>(word) << 16); }
  static __device__ __forceinline__ Word narrow(float x) { return __bfloat16_as_ushort(__float2bfloat16_rn(x)); }
};
struct StoredFloat {
  using Word = float;
  static __device__ __forceinline__ float widen(Word word) { return word; }
  static __device__ __forceinline__ Word narrow(float x) { return x; }
};

/// run(StoredHalf) or run(StoredBf16).
template <class Run>
void with_half_storage(DType dtype, const char* definition, const Run& run) {
  require(dtype != DType::fp32, definition, ": activations are fp32; it is defined for fp16 and bf16");
  if (dtype == DType::fp16) {
    run(StoredHalf{});
  } else {
    run(StoredBf16{});
  }
}

inline void require_fp32(DType dtype, const char* definition) {
  require(dtype == DType::fp32, definition, ": activations are ", dtype_name(dtype), "; it is defined for fp32");
}

/// N words that move together. 16 bytes at most.
template <class Word, int N>
struct alignas(sizeof(Word) * N) Vector {
  Word words[N];
};

/// The address, and every multiple of `step` bytes from it, is aligned for vectors of `bytes`.
inline bool aligned_for(const void* pointer, int64_t step, size_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % bytes == 0 && step % static_cast<int64_t>(bytes) == 0;
}

template <class Stored, int N>
__device__ __forceinline__ void load(const typename Stored::Word* from, bool aligned, float (&to)[N]) {
  using Word = typename Stored::Word;
  if (aligned) {
    const Vector<Word, N> vector = *reinterpret_cast<const Vector<Word, N>*>(from);
#pragma unroll
    for (int i = 0; i < N; ++i) to[i] = Stored::widen(vector.words[i]);
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) to[i] = Stored::widen(from[i]);
  }
}

template <class Stored, int N>
__device__ __forceinline__ void store(typename Stored::Word* to, bool aligned, const float (&from)[N]) {
  using Word = typename Stored::Word;
  if (aligned) {
    Vector<Word, N> vector;
#pragma unroll
    for (int i = 0; i < N; ++i) vector.words[i] = Stored::narrow(from[i]);
    *reinterpret_cast<Vector<Word, N>*>(to) = vector;
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) to[i] = Stored::narrow(from[i]);
  }
}

}  // namespace qf::cuda
