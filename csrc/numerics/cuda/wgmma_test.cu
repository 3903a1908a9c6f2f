// wgmma m64n8k16 against the definition. Operands lie in shared memory as wgmma wants them without swizzle: blocks of 8
// rows x 16 bytes, the two blocks of a step's k side by side, then the next 8 rows (PTX ISA, "shared memory matrix
// layout").
#include "base/cuda/check.h"
#include "base/cuda/gpu.h"
#include "numerics/cuda/step_draw.cuh"

namespace qf::cuda {
namespace {

constexpr int kThreads = 128, kLeft = 64, kRight = 8, kSteps = 4, kBlocks = 132 * 8;

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
__device__ __forceinline__ uint64_t descriptor(const void* shared) {
  constexpr int kBlockBytes = 128, kRowsBytes = 2 * kBlockBytes;  // one block; 8 rows of a step
  const auto address = static_cast<uint64_t>(__cvta_generic_to_shared(shared));
  return (address & 0x3FFFFu) >> 4 | static_cast<uint64_t>(kBlockBytes >> 4) << 16 |
         static_cast<uint64_t>(kRowsBytes >> 4) << 32;
}
__device__ __forceinline__ void issue(Fp16, float (&d)[4], uint64_t a, uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%0,%1,%2,%3}, %4, %5, 1, 1, 1, 0, 0;"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "l"(a), "l"(b));
}
__device__ __forceinline__ void issue(Bf16, float (&d)[4], uint64_t a, uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0,%1,%2,%3}, %4, %5, 1, 1, 1, 0, 0;"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "l"(a), "l"(b));
}
#endif

template <class Format>
__device__ __forceinline__ void wgmma(float (&d)[4], const void* left, const void* right) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("fence.proxy.async.shared::cta;");  // the rows were written by ordinary stores
  __syncthreads();
  asm volatile("wgmma.fence.sync.aligned;" : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])::"memory");
  issue(Format{}, d, descriptor(left), descriptor(right));
  asm volatile("wgmma.commit_group.sync.aligned;");
  asm volatile("wgmma.wait_group.sync.aligned 0;" : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])::"memory");
#else
  __trap();
#endif
}

template <class Format>
__global__ void __launch_bounds__(kThreads)
    wgmma_test_kernel(MatrixUnit unit, StepInputs inputs, uint64_t seed, int64_t rounds, Tally* tally) {
  __shared__ __align__(128) uint16_t packed[(kLeft + kRight) * 16];
  __shared__ uint16_t plain[(kLeft + kRight) * kLd];
  const int thread = threadIdx.x, warp = thread / 32;
  const LaneTile lane;
  Random random{seed ^ (static_cast<uint64_t>(blockIdx.x) * kThreads + thread) * 0xD1342543DE82EF95u};
  for (int64_t round = 0; round < rounds; ++round) {
    float expected[4], found[4];
    for (int i = 0; i < 4; ++i) expected[i] = found[i] = draw_accumulator(inputs, random, false);
    for (int step = 0; step < kSteps; ++step) {
      __syncthreads();
      if (thread < kLeft + kRight) {
        uint16_t bits = 0;
        for (int k = 0; k < 16; ++k) {
          bits = draw<Format>(inputs, random, k, bits);
          plain[thread * kLd + k] = bits;
          packed[thread / 8 * 128 + k / 8 * 64 + thread % 8 * 8 + k % 8] = bits;
        }
      }
      wgmma<Format>(found, packed, packed + kLeft * 16);
      for (int i = 0; i < 4; ++i) {
        const uint16_t* row = plain + (warp * 16 + lane.row(i)) * kLd;
        const uint16_t* column = plain + (kLeft + lane.column(i)) * kLd;
        for (int k = 0; k < 16; k += unit.products)
          expected[i] = definition_output<Format>(unit, row + k, column + k, unit.products, expected[i]);
        compare(tally, expected[i], found[i], false);
        found[i] = expected[i];  // a difference counts once
      }
    }
  }
}

}  // namespace

StepTestResult run_wgmma_test(const StepTest& test, const Allocator& allocator, void* stream) {
  int device = 0, major = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  require(major == 9, "wgmma belongs to compute capability 9.0; this GPU has ", major, ".x");
  require(test.unit.rounding == Rounding::fp32_toward_zero, "the wgmma test has fp32 accumulators");
  constexpr int64_t per_round = static_cast<int64_t>(kBlocks) * kLeft * kRight * kSteps;
  const int64_t rounds = (test.outputs + per_round - 1) / per_round;
  const Buffer<Tally> tally(allocator, 1, stream);
  const auto s = static_cast<cudaStream_t>(stream);
  check(cudaMemsetAsync(tally.data(), 0, sizeof(Tally), s), "cudaMemsetAsync");
  auto* kernel = test.unit.input_exponent == -126 ? wgmma_test_kernel<Bf16> : wgmma_test_kernel<Fp16>;
  kernel<<<kBlocks, kThreads, 0, s>>>(test.unit, test.inputs, test.seed, rounds, tally.data());
  check_launch("wgmma_test");
  Tally found{};
  copy_to_host(&found, tally.data(), sizeof found, stream);
  return {rounds * per_round, static_cast<int64_t>(found.differing), found.expected, found.found};
}

}  // namespace qf::cuda
