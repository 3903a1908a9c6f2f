// vLLM 0.21's act_and_mul kernel: see ../silu_and_mul_vllm.cpp.
#include "base/cuda/check.h"
#include "numerics/cuda_math.h"
#include "operators/cuda/device_operators.h"
#include "operators/cuda/sfu_choice.cuh"
#include "operators/cuda/stored.cuh"

namespace qf::cuda {
namespace {

constexpr int kThreads = 256;

/// The quotients that `divide` gives exactly: no operation inside it leaves the normal numbers.
__device__ __forceinline__ bool divides_simply(float gate, float denominator) {
  const float size = fabsf(gate);
  return (size == 0.0f || (size >= 0x1p-60f && size <= 0x1p60f)) && denominator <= 0x1p60f;
}

/// IEEE quotient (whatever the last bits of rcp are) by Newton's step and one correction, as nvcc divides where its range check passes; without the check, a
/// thread's divisions run side by side.
__device__ __forceinline__ float divide(float gate, float denominator) {
  float inverse = OwnUnitSfu{}.rcp(denominator);
  inverse = fmaf(inverse, fmaf(-denominator, inverse, 1.0f), inverse);
  const float quotient = __fmul_rn(gate, inverse);
  const float corrected = fmaf(inverse, fmaf(-denominator, quotient, gate), quotient);
  return gate == 0.0f ? gate : corrected;  // the correction loses a zero's sign
}

/// A thread takes N elements of a row; `blocks` blocks cover one.
template <class Stored, int N, class Sfu>
__global__ void __launch_bounds__(kThreads, 4) gate_rows(SiluAndMulArgs args, unsigned blocks, bool aligned, Sfu sfu) {
  using Word = typename Stored::Word;
  const int64_t row = blockIdx.x / blocks;
  const int64_t at = (static_cast<int64_t>(blockIdx.x % blocks) * kThreads + threadIdx.x) * N;
  if (at >= args.columns) return;
  const Word* x = static_cast<const Word*>(args.x) + row * 2 * args.columns + at;
  float gate[N], up[N];
  load<Stored>(x, aligned, gate);
  load<Stored>(x + args.columns, aligned, up);
  float denominator[N];
  bool simple = true;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const ExpParts e = cuda_exp_parts(sfu, -gate[i]);
    denominator[i] = fmaf(e.scale, e.mantissa, 1.0f);
    simple = simple && divides_simply(gate[i], denominator[i]);
  }
  if (simple) {
#pragma unroll
    for (int i = 0; i < N; ++i) gate[i] = divide(gate[i], denominator[i]);
  } else {
#pragma unroll 1
    for (int i = 0; i < N; ++i) gate[i] = __fdiv_rn(gate[i], denominator[i]);
  }
#pragma unroll
  for (int i = 0; i < N; ++i) gate[i] = __fmul_rn(Stored::widen(Stored::narrow(gate[i])), up[i]);
  store<Stored>(static_cast<Word*>(args.out) + row * args.columns + at, aligned, gate);
}

template <class Stored, int N>
void launch(const DeviceOperatorContext& context, const SiluAndMulArgs& args) {
  const bool aligned = aligned_for(args.x, 0, 2 * N) && aligned_for(args.out, 0, 2 * N);
  const auto blocks = static_cast<unsigned>((args.columns + kThreads * N - 1) / (kThreads * N));
  const auto grid = static_cast<unsigned>(args.rows) * blocks;
  if (grid == 0) return;
  with_sfu(*context.sfu, [&](auto sfu) {
    gate_rows<Stored, N>
        <<<grid, kThreads, 0, static_cast<cudaStream_t>(context.stream)>>>(args, blocks, aligned, sfu);
  });
  check_launch("silu_and_mul_vllm");
}

}  // namespace

void silu_and_mul_vllm(const DeviceOperatorContext& context, const SiluAndMulArgs& args) {
  with_half_storage(args.dtype, "silu_and_mul vllm", [&](auto stored) {
    using Stored = decltype(stored);
    args.columns % 8 == 0 ? launch<Stored, 8>(context, args) : launch<Stored, 1>(context, args);
  });
}

}  // namespace qf::cuda
