// QF_HD marks functions that both the host compiler and nvcc compile.
#pragma once

#if defined(__CUDACC__)
#define QF_HD __host__ __device__
#else
#define QF_HD
#endif

// For hot functions in headers: every caller gets its own copy. Besides speed it keeps a copy compiled for AVX2 from
// being the one that the linker picks for everybody.
#if defined(__CUDACC__)
#define QF_HD_INLINE __host__ __device__ __forceinline__
#elif defined(__GNUC__)
#define QF_HD_INLINE inline __attribute__((always_inline))
#else
#define QF_HD_INLINE inline
#endif
