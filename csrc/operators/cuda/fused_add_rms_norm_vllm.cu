// vLLM 0.21's fused_add_rms_norm kernel: the residual's sum is rounded before it is squared. The real block has
// min(columns, limit) threads; those beyond the last vector of 8 add +0, so they are not launched.
#include "operators/cuda/device_operators.h"
#include "operators/cuda/norm_rows.cuh"
#include "operators/elements.h"

namespace qf::cuda {
namespace {

template <class Stored>
struct FusedRows {
  using Word = typename Stored::Word;
  const Word *x, *residual, *weight;
  Word *out, *residual_out;
  int64_t columns;
  bool aligned;

  __device__ int64_t offset(int64_t row) const { return row * columns; }
  template <int N>
  __device__ void read(int64_t at, float (&v)[N]) const {
    float r[N];
    load<Stored>(x + at, aligned, v);
    load<Stored>(residual + at, aligned, r);
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = Stored::widen(Stored::narrow(__fadd_rn(v[i], r[i])));
    store<Stored>(residual_out + at, aligned, v);
  }
  template <int N>
  __device__ void read_again(int64_t at, float (&v)[N]) const {
    load<Stored>(residual_out + at, aligned, v);
  }
  static __device__ float add_squares(const float (&v)[8], float sum) { return __fadd_rn(square_eight(v), sum); }
  static __device__ float add_squares(const float (&v)[1], float sum) { return fmaf(v[0], v[0], sum); }
  template <int N>
  __device__ void write(int64_t offset, int vector, float (&v)[N], float scale) const {
    const int64_t at = int64_t{vector} * N;
    write_norm<Stored>(out + offset + at, weight + at, aligned, v, scale);
  }
};

template <class Stored>
void run(const DeviceOperatorContext& context, const FusedAddRmsNormArgs& args) {
  using Word = typename Stored::Word;
  bool aligned = true;
  for (const void* pointer : {args.x, args.residual, args.weight, static_cast<const void*>(args.out),
                              static_cast<const void*>(args.residual_out)}) {
    aligned = aligned && aligned_for(pointer, args.columns * 2, 16);
  }
  const FusedRows<Stored> rows{static_cast<const Word*>(args.x),
                               static_cast<const Word*>(args.residual),
                               static_cast<const Word*>(args.weight),
                               static_cast<Word*>(args.out),
                               static_cast<Word*>(args.residual_out),
                               args.columns,
                               aligned};
  const int64_t length = args.columns % 8 == 0 ? 8 : 1;
  const NormShape shape = norm_shape(args.rows, args.columns, length, args.epsilon);
  const char* name = "fused_add_rms_norm_vllm";
  length == 8 ? launch_norm<8>(context, rows, shape, name) : launch_norm<1>(context, rows, shape, name);
}

}  // namespace

void fused_add_rms_norm_vllm(const DeviceOperatorContext& context, const FusedAddRmsNormArgs& args) {
  with_half_storage(args.dtype, "fused_add_rms_norm vllm", [&](auto stored) { run<decltype(stored)>(context, args); });
}

}  // namespace qf::cuda
