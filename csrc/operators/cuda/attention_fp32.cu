// Attention in fp32 on a GPU: every sum in the order of operators/attention_fp32.cpp.
//
// A thread block takes 16 packed rows of a kv head through all keys twice: once for the largest score of each row, once
// for the exponentials, their sum and the values. Scores are computed twice rather than kept: no workspace, for any
// length.
#include "base/cuda/check.h"
#include "base/error.h"
#include "operators/cuda/device_operators.h"
#include "operators/elements.h"
#include "operators/portable_math.h"

namespace qf::cuda {
namespace {

constexpr int kThreads = 256, kRows = 16, kKeys = 32;
constexpr int kPadding = 4;  // floats: eight rows then lie in different banks, 16 bytes of each

struct Fp32Job {
  const float *q, *k, *v;
  float* out;
  int64_t q_stride, k_stride, v_stride, out_stride;
  int32_t queries, keys, group, kv_heads;
  float scale;
};

template <int kHead>
struct Fp32Shared {
  static constexpr int kRowLength = kHead + kPadding;
  alignas(16) float q[kRows][kRowLength];
  alignas(16) float right[kKeys][kRowLength];  // keys, then values
  float p[kRows][kKeys + 1];
  float largest[kRows];
  double total[kRows];
};

struct SixteenSums {
  float sums[16] = {};

  __device__ __forceinline__ void add(int first, const float4& a, const float4& b) {
    sums[first] = __fadd_rn(sums[first], __fmul_rn(a.x, b.x));
    sums[first + 1] = __fadd_rn(sums[first + 1], __fmul_rn(a.y, b.y));
    sums[first + 2] = __fadd_rn(sums[first + 2], __fmul_rn(a.z, b.z));
    sums[first + 3] = __fadd_rn(sums[first + 3], __fmul_rn(a.w, b.w));
  }
  __device__ __forceinline__ float total() {
#pragma unroll
    for (int width = 8; width > 0; width /= 2) {
#pragma unroll
      for (int lane = 0; lane < width; ++lane) sums[lane] = __fadd_rn(sums[lane], sums[lane + width]);
    }
    return sums[0];
  }
};

/// Products of a row with two others: 16 running sums, element i in sum i mod 16, then added pairwise.
template <int kHead>
__device__ __forceinline__ float2 two_dots(const float* a, const float* b, const float* c) {
  SixteenSums first, second;
#pragma unroll
  for (int i = 0; i < kHead; i += 4) {
    const float4 four = *reinterpret_cast<const float4*>(a + i);
    first.add(i % 16, four, *reinterpret_cast<const float4*>(b + i));
    second.add(i % 16, four, *reinterpret_cast<const float4*>(c + i));
  }
  return {first.total(), second.total()};
}

template <int kHead>
struct Fp32Block {
  const Fp32Job& job;
  Fp32Shared<kHead>& shared;
  int kv_head, first_row, total_rows;

  __device__ int packed(int row) const { return min(first_row + row, total_rows - 1); }
  __device__ int visible(int row) const { return job.keys - job.queries + packed(row) / job.group + 1; }
  __device__ int64_t head_offset(int row) const {
    return static_cast<int64_t>(kv_head * job.group + packed(row) % job.group) * kHead;
  }

  __device__ void load_queries() {
    for (int i = threadIdx.x; i < kRows * kHead; i += kThreads) {
      const int row = i / kHead, d = i % kHead;
      shared.q[row][d] = job.q[packed(row) / job.group * job.q_stride + head_offset(row) + d];
    }
  }
  /// Waits for all, before and after.
  __device__ void load(const float* from, int64_t stride, int first_key) {
    __syncthreads();
    for (int i = threadIdx.x; i < kKeys * kHead; i += kThreads) {
      const int key = first_key + i / kHead, d = i % kHead;
      if (key < job.keys) shared.right[i / kHead][d] = from[key * stride + kv_head * kHead + d];
    }
    __syncthreads();
  }
  /// Of this thread: row threadIdx.x / 16, keys threadIdx.x % 16 and + 16.
  __device__ float2 scores() const {
    const int row = threadIdx.x / 16, key = threadIdx.x % 16;
    const float2 dots = two_dots<kHead>(shared.q[row], shared.right[key], shared.right[key + 16]);
    return {__fmul_rn(dots.x, job.scale), __fmul_rn(dots.y, job.scale)};
  }

  __device__ void find_largest(int most) {
    const int row = threadIdx.x / 16, key = threadIdx.x % 16;
    float largest = -INFINITY;
    for (int first = 0; first < most; first += kKeys) {
      load(job.k, job.k_stride, first);
      const float2 pair = scores();  // a NaN is passed over
      if (first + key < visible(row) && pair.x > largest) largest = pair.x;
      if (first + key + 16 < visible(row) && pair.y > largest) largest = pair.y;
    }
    for (int offset = 1; offset < 16; offset *= 2) {
      const float other = __shfl_xor_sync(0xFFFFFFFFu, largest, offset);
      if (other > largest) largest = other;
    }
    if (threadIdx.x % 16 == 0) shared.largest[row] = largest;
  }

  __device__ void exponentials() const {
    const int row = threadIdx.x / 16, key = threadIdx.x % 16;
    const float2 pair = scores();  // those of keys that the row does not see are not read
    shared.p[row][key] = portable_exp(__fadd_rn(pair.x, -shared.largest[row]));
    shared.p[row][key + 16] = portable_exp(__fadd_rn(pair.y, -shared.largest[row]));
  }

  /// Elements threadIdx.x % kHead of rows threadIdx.x / kHead + j * kThreads / kHead.
  static constexpr int kStep = kThreads / kHead, kOutputs = kRows / kStep;

  __device__ void add_value(int row, int key, float& sum) const {
    const float value = shared.right[key][threadIdx.x % kHead];
    sum = __fadd_rn(sum, __fmul_rn(shared.p[row][key], value));
  }
  __device__ void add_values(int first, float (&sums)[kOutputs]) const {
    const int row0 = threadIdx.x / kHead;
    const int all = max(0, min(kKeys, visible(0) - first));  // keys that every row sees
    for (int j = 0; j < all; ++j) {
#pragma unroll
      for (int i = 0; i < kOutputs; ++i) add_value(row0 + i * kStep, j, sums[i]);
    }
#pragma unroll
    for (int i = 0; i < kOutputs; ++i) {
      const int row = row0 + i * kStep, count = min(kKeys, visible(row) - first);
      for (int j = all; j < count; ++j) add_value(row, j, sums[i]);
    }
  }

  __device__ void run() {
    total_rows = job.queries * job.group;
    const int most = visible(kRows - 1), d = threadIdx.x % kHead, row0 = threadIdx.x / kHead;
    load_queries();
    find_largest(most);
    float sums[kOutputs] = {};
    double total = 0.0;
    for (int first = 0; first < most; first += kKeys) {
      load(job.k, job.k_stride, first);
      exponentials();
      load(job.v, job.v_stride, first);
      if (threadIdx.x < kRows) {
        const int count = min(kKeys, visible(threadIdx.x) - first);
        for (int j = 0; j < count; ++j) total += static_cast<double>(shared.p[threadIdx.x][j]);
      }
      add_values(first, sums);
    }
    if (threadIdx.x < kRows) shared.total[threadIdx.x] = total;
    __syncthreads();
    for (int i = 0; i < kOutputs; ++i) {
      const int row = row0 + i * kStep;
      if (first_row + row >= total_rows) continue;
      const float inverse = static_cast<float>(1.0 / shared.total[row]);
      job.out[packed(row) / job.group * job.out_stride + head_offset(row) + d] = one_nan(__fmul_rn(sums[i], inverse));
    }
  }
};

template <int kHead>
__global__ void __launch_bounds__(kThreads) attention_fp32_kernel(const Fp32Job job) {
  __shared__ Fp32Shared<kHead> shared;
  // the last rows see the most keys: they go first
  const int tile = static_cast<int>(gridDim.x / job.kv_heads) - 1 - static_cast<int>(blockIdx.x) / job.kv_heads;
  Fp32Block<kHead> block{job, shared, static_cast<int>(blockIdx.x) % job.kv_heads, tile * kRows, 0};
  block.run();
}

}  // namespace

void attention_fp32(const DeviceOperatorContext& context, const AttentionArgs& args) {
  check_attention(args);
  require(args.dtype == DType::fp32, "attention fp32: activations are ", dtype_name(args.dtype));
  const int64_t group = args.heads / args.kv_heads;
  for (int64_t i = 0; i < args.sequence_count; ++i) {
    const AttentionSequence& s = args.sequences[i];
    const int64_t rows = s.queries * group, blocks = (rows + kRows - 1) / kRows * args.kv_heads;
    require(s.keys < (int64_t{1} << 30) && rows < (int64_t{1} << 30), "attention on CUDA: sequence ", i, " with ",
            s.queries, " queries and ", s.keys, " keys is too long");
    const Fp32Job job{.q = static_cast<const float*>(s.q),
                      .k = static_cast<const float*>(s.k),
                      .v = static_cast<const float*>(s.v),
                      .out = static_cast<float*>(s.out),
                      .q_stride = args.q_stride,
                      .k_stride = args.k_stride,
                      .v_stride = args.v_stride,
                      .out_stride = args.out_stride,
                      .queries = static_cast<int32_t>(s.queries),
                      .keys = static_cast<int32_t>(s.keys),
                      .group = static_cast<int32_t>(group),
                      .kv_heads = static_cast<int32_t>(args.kv_heads),
                      .scale = args.scale};
    auto* kernel = args.head_size == 64 ? attention_fp32_kernel<64> : attention_fp32_kernel<128>;
    kernel<<<static_cast<unsigned>(blocks), kThreads, 0, static_cast<cudaStream_t>(context.stream)>>>(job);
    check_launch("attention fp32");
  }
}

}  // namespace qf::cuda
