// vLLM 0.21's rms_norm kernel: a thread's squares are one chain of fma over vectors of gcd(8, columns).
#include <numeric>

#include "operators/cuda/device_operators.h"
#include "operators/cuda/norm_rows.cuh"

namespace qf::cuda {
namespace {

template <class Stored>
struct PlainRows {
  using Word = typename Stored::Word;
  const Word* x;
  const Word* weight;
  Word* out;
  int64_t stride, inner_stride;
  uint32_t inner_rows;
  bool aligned;

  __device__ int64_t offset(int64_t row) const {
    if (inner_rows == 1) return row * stride;
    const uint32_t r = static_cast<uint32_t>(row);
    return int64_t{r / inner_rows} * stride + int64_t{r % inner_rows} * inner_stride;
  }
  template <int N>
  __device__ void read(int64_t at, float (&v)[N]) const {
    load<Stored>(x + at, aligned, v);
  }
  template <int N>
  __device__ void read_again(int64_t at, float (&v)[N]) const {
    read(at, v);
  }
  template <int N>
  static __device__ float add_squares(const float (&v)[N], float sum) {
#pragma unroll
    for (int i = 0; i < N; ++i) sum = fmaf(v[i], v[i], sum);
    return sum;
  }
  template <int N>
  __device__ void write(int64_t offset, int vector, float (&v)[N], float scale) const {
    const int64_t at = int64_t{vector} * N;
    write_norm<Stored>(out + offset + at, weight + at, aligned, v, scale);
  }
};

template <class Stored>
void run(const DeviceOperatorContext& context, const RmsNormArgs& args) {
  using Word = typename Stored::Word;
  const int64_t length = std::gcd<int64_t>(8, args.columns);
  const size_t bytes = static_cast<size_t>(length) * sizeof(Word);
  const bool aligned = aligned_for(args.x, args.stride * 2, bytes) &&
                       aligned_for(args.out, args.inner_stride * 2, bytes) && aligned_for(args.weight, 0, bytes);
  const PlainRows<Stored> rows{static_cast<const Word*>(args.x),
                               static_cast<const Word*>(args.weight),
                               static_cast<Word*>(args.out),
                               args.stride,
                               args.inner_stride,
                               static_cast<uint32_t>(args.inner_rows),
                               aligned};
  const NormShape shape = norm_shape(args.rows, args.columns, length, args.epsilon);
  const char* name = "rms_norm_vllm";
  switch (length) {
    case 8: return launch_norm<8>(context, rows, shape, name);
    case 4: return launch_norm<4>(context, rows, shape, name);
    case 2: return launch_norm<2>(context, rows, shape, name);
    default: return launch_norm<1>(context, rows, shape, name);
  }
}

}  // namespace

void rms_norm_vllm(const DeviceOperatorContext& context, const RmsNormArgs& args) {
  with_half_storage(args.dtype, "rms_norm vllm", [&](auto stored) { run<decltype(stored)>(context, args); });
}

}  // namespace qf::cuda
