// vLLM 0.21's act_and_mul kernel: see ../silu_and_mul_vllm.cpp.
#include "base/cuda/overlap.cuh"
#include "numerics/cuda_math.h"
#include "operators/cuda/device_operators.h"
#include "operators/cuda/sfu_choice.cuh"
#include "operators/cuda/stored.cuh"

namespace qf::cuda {
namespace {

constexpr int kThreads = 256;

/// Where `divide` is exact: gate finite and the denominator 1 + exp(-gate) below 2^60. Tiny gates have the
/// denominator 2.
__device__ __forceinline__ bool divides_simply(float gate) { return gate >= -41.0f && gate < INFINITY; }

/// IEEE quotient (whatever the last bits of rcp are) by Newton's step and one correction, as nvcc divides where its
/// range check passes; without the check, a thread's divisions run side by side. A zero keeps its sign.
__device__ __forceinline__ float divide(float gate, float denominator) {
  float inverse = OwnUnitSfu{}.rcp(denominator);
  inverse = fmaf(inverse, fmaf(-denominator, inverse, 1.0f), inverse);
  const float quotient = __fmul_rn(gate, inverse);
  return fmaf(-inverse, fmaf(denominator, quotient, -gate), quotient);
}

/// Both activated gates rounded to the storage format, times up. fp16 multiplies directly: the fp32 product is exact.
__device__ __forceinline__ void finish_pair(StoredHalf, float (&gate)[2], const uint16_t* up, uint16_t* out) {
  const __half2 factor = __halves2half2(__ushort_as_half(up[0]), __ushort_as_half(up[1]));
  const __half2 product = __hmul2_rn(__floats2half2_rn(gate[0], gate[1]), factor);
  out[0] = __half_as_ushort(__low2half(product));
  out[1] = __half_as_ushort(__high2half(product));
}
__device__ __forceinline__ void finish_pair(StoredBf16, float (&gate)[2], const uint16_t* up, uint16_t* out) {
  for (int i = 0; i < 2; ++i) {
    const float rounded = StoredBf16::widen(StoredBf16::narrow(gate[i]));
    out[i] = StoredBf16::narrow(__fmul_rn(rounded, StoredBf16::widen(up[i])));
  }
}

/// N elements, in place of their gates.
template <class Stored, int N, class Sfu>
__device__ __forceinline__ void activate(Vector<uint16_t, N>& words, const Vector<uint16_t, N>& up, const Sfu& sfu) {
  float gate[N], denominator[N];
  bool simple = true;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    gate[i] = Stored::widen(words.words[i]);
    const ExpParts e = cuda_exp_parts(sfu, -gate[i]);
    denominator[i] = fmaf(e.scale, e.mantissa, 1.0f);
    simple = simple && divides_simply(gate[i]);
  }
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if (simple) gate[i] = divide(gate[i], denominator[i]);
  }
  if (!simple) {
#pragma unroll
    for (int i = 0; i < N; ++i) gate[i] = __fdiv_rn(gate[i], denominator[i]);
  }
  if constexpr (N == 1) {
    const float rounded = Stored::widen(Stored::narrow(gate[0]));
    words.words[0] = Stored::narrow(__fmul_rn(rounded, Stored::widen(up.words[0])));
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 2) {
      float pair[2] = {gate[i], gate[i + 1]};
      finish_pair(Stored{}, pair, up.words + i, words.words + i);
    }
  }
}

/// A thread takes N elements of a row; `blocks` blocks cover one.
template <class Stored, int N, class Sfu>
__global__ void __launch_bounds__(kThreads, 4) gate_rows(SiluAndMulArgs args, unsigned blocks, Sfu sfu) {
  let_next_kernel_start();
  wait_for_earlier_kernels();
  const int64_t row = blockIdx.x / blocks;
  const int64_t at = (static_cast<int64_t>(blockIdx.x % blocks) * kThreads + threadIdx.x) * N;
  if (at >= args.columns) return;
  using Words = Vector<uint16_t, N>;
  const uint16_t* x = static_cast<const uint16_t*>(args.x) + row * 2 * args.columns + at;
  Words words = *reinterpret_cast<const Words*>(x);
  const Words up = *reinterpret_cast<const Words*>(x + args.columns);
  activate<Stored>(words, up, sfu);
  *reinterpret_cast<Words*>(static_cast<uint16_t*>(args.out) + row * args.columns + at) = words;
}

template <class Stored, int N>
void launch_gates(const DeviceOperatorContext& context, const SiluAndMulArgs& args) {
  const auto blocks = static_cast<unsigned>((args.columns + kThreads * N - 1) / (kThreads * N));
  const auto grid = static_cast<unsigned>(args.rows) * blocks;
  if (grid == 0) return;
  with_sfu(*context.sfu, [&](auto sfu) {
    launch(gate_rows<Stored, N, decltype(sfu)>, {dim3(grid), dim3(kThreads), 0, context.overlapped}, context.stream,
           "silu_and_mul_vllm", args, blocks, sfu);
  });
}

}  // namespace

void silu_and_mul_vllm(const DeviceOperatorContext& context, const SiluAndMulArgs& args) {
  with_half_storage(args.dtype, "silu_and_mul vllm", [&](auto stored) {
    using Stored = decltype(stored);
    const bool wide = aligned_for(args.x, args.columns * 2, 16) && aligned_for(args.out, args.columns * 2, 16);
    wide ? launch_gates<Stored, 8>(context, args) : launch_gates<Stored, 1>(context, args);
  });
}

}  // namespace qf::cuda
