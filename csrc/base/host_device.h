// QF_HD marks functions that both the host compiler and nvcc compile.
#pragma once

#if defined(__CUDACC__)
#define QF_HD __host__ __device__
#else
#define QF_HD
#endif
