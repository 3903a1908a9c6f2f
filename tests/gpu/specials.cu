// What a GPU makes of NaN, Inf and signed zeros: prints `operation a b c result` in hexadecimal, one line per case.
// Reads `operation a b c` from its input; to record again:
// nvcc -std=c++20 -arch=sm_90a specials.cu && cut -d" " -f1-4 ../data/vectors/specials.txt | ./a.out > specials.txt
#include <cstdint>
#include <cstdio>
#include <string_view>

// W: 32-bit result, H: 16-bit result; operands a, b, c are 32-bit, x, y, z their low halves.
#define OPERATIONS                                                                                      \
  H(cvt_f16_f32, "cvt.rn.f16.f32 %0,%1;", "r"(a)) H(cvt_bf16_f32, "cvt.rn.bf16.f32 %0,%1;", "r"(a))     \
  W(cvt_f16x2_f32, "cvt.rn.f16x2.f32 %0,%1,%2;", "r"(a), "r"(b))                                        \
  W(cvt_bf16x2_f32, "cvt.rn.bf16x2.f32 %0,%1,%2;", "r"(a), "r"(b))                                      \
  W(cvt_tf32_f32, "cvt.rna.tf32.f32 %0,%1;", "r"(a)) W(cvt_f32_f16, "cvt.f32.f16 %0,%1;", "h"(x))       \
  W(cvt_f32_bf16, "cvt.f32.bf16 %0,%1;", "h"(x))                                                        \
  H(cvt_e4m3_f32, "cvt.rn.satfinite.e4m3x2.f32 %0,%1,%1;", "r"(a))                                      \
  H(cvt_e5m2_f32, "cvt.rn.satfinite.e5m2x2.f32 %0,%1,%1;", "r"(a))                                      \
  W(cvt_f16x2_e4m3, "cvt.rn.f16x2.e4m3x2 %0,%1;", "h"(x)) W(cvt_f16x2_e5m2, "cvt.rn.f16x2.e5m2x2 %0,%1;", "h"(x)) \
  W(add_f32, "add.rn.f32 %0,%1,%2;", "r"(a), "r"(b)) W(mul_f32, "mul.rn.f32 %0,%1,%2;", "r"(a), "r"(b)) \
  W(fma_f32, "fma.rn.f32 %0,%1,%2,%3;", "r"(a), "r"(b), "r"(c)) W(max_f32, "max.f32 %0,%1,%2;", "r"(a), "r"(b)) \
  H(add_f16, "add.rn.f16 %0,%1,%2;", "h"(x), "h"(y)) H(mul_f16, "mul.rn.f16 %0,%1,%2;", "h"(x), "h"(y)) \
  H(fma_f16, "fma.rn.f16 %0,%1,%2,%3;", "h"(x), "h"(y), "h"(z))                                         \
  H(fma_bf16, "fma.rn.bf16 %0,%1,%2,%3;", "h"(x), "h"(y), "h"(z))

// One product pair in lane 0, a (row 0, k 0 and 1) times b (k 0 and 1, column 0), onto c; _all: in every lane, k 0..15.
#define F32_OUT(type, all)                                                                                         \
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type                                             \
               ".f32 {%0,%1,%2,%3},{%4,%5,%5,%5},{%6,%7},{%8,%9,%9,%9};"                                           \
               : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])                                                    \
               : "r"(on ? a : 0), "r"(all ? a : 0), "r"(on ? b : 0), "r"(all ? b : 0), "r"(on ? c : 0), "r"(all ? c : 0))
#define F16_OUT(all)                                                                                               \
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%0,%1},{%2,%3,%3,%3},{%4,%5},{%6,%7};"          \
               : "=r"(d[0]), "=r"(d[1])                                                                            \
               : "r"(on ? a : 0), "r"(all ? a : 0), "r"(on ? b : 0), "r"(all ? b : 0), "r"(on ? c : 0), "r"(all ? c : 0))
#define MATRIX(X) X(mma_f16_f32) X(mma_bf16_f32) X(mma_f16_f16) X(mma_f16_f32_all) X(mma_bf16_f32_all) X(mma_f16_f16_all)

#define H(name, ...) name,
#define W(name, ...) name,
#define M(name) name,
enum Operation { OPERATIONS MATRIX(M) };
#undef H
#undef W
#undef M
#define H(name, ...) #name,
#define W(name, ...) #name,
#define M(name) #name,
const char* const kNames[] = {OPERATIONS MATRIX(M)};
#undef H
#undef W

__global__ void run(int operation, uint32_t a, uint32_t b, uint32_t c, uint32_t* out) {
  uint32_t d[4] = {}, w = 0;
  uint16_t h = 0, x = a, y = b, z = c;
  bool on = threadIdx.x == 0;
  const bool all = operation >= mma_f16_f32_all;
  on |= all;
  switch (operation) {
#define H(name, text, ...) case name: asm volatile(text : "=h"(h) : __VA_ARGS__); d[0] = h; break;
#define W(name, text, ...) case name: asm volatile(text : "=r"(w) : __VA_ARGS__); d[0] = w; break;
    OPERATIONS
    case mma_f16_f32: case mma_f16_f32_all: F32_OUT("f16", all); break;
    case mma_bf16_f32: case mma_bf16_f32_all: F32_OUT("bf16", all); break;
    default: F16_OUT(all);
  }
  if (threadIdx.x == 0) *out = d[0];
}

int main() {
  uint32_t *out, found;
  cudaMalloc(&out, 4);
  int operation;
  char name[64];
  uint32_t a, b, c;
  while (scanf("%63s %x %x %x", name, &a, &b, &c) == 4) {
    for (operation = 0; operation <= mma_f16_f16_all && std::string_view(kNames[operation]) != name;) ++operation;
    if (operation > mma_f16_f16_all) return fprintf(stderr, "unknown operation %s\n", name), 2;
    run<<<1, 32>>>(operation, a, b, c, out);
    if (cudaMemcpy(&found, out, 4, cudaMemcpyDeviceToHost) != cudaSuccess) return 1;
    printf("%s %08x %08x %08x %08x\n", name, a, b, c, found);
  }
}
