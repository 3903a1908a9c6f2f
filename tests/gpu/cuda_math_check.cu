// Compares cuda_math.h, cuda_trig.h and special_function_unit.h (csrc/numerics) with the GPU under it, bit for bit:
//
//   flags="-std=c++20 -O2 -arch=sm_90 -ftz=false -prec-div=true -prec-sqrt=true -Icsrc"
//   nvcc $flags tests/gpu/cuda_math_check.cu csrc/numerics/{special_function_unit,rope_cache}.cpp -o /tmp/check
//   python3 tests/gpu/unpack_sfu.py /tmp/sfu && /tmp/check /tmp/sfu
//
// Prints one line per function: inputs compared, mismatches, the first one. Every one-argument function is compared
// over all 2^32 inputs, powf over 2^33 pairs, both sides on the device; the rotary caches over 8,192 positions, ours
// from the host. NaN compares equal to NaN. Exit status 1 when anything differs or fails.
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "base/half.h"
#include "numerics/cuda_math.h"
#include "numerics/cuda_trig.h"
#include "numerics/rope_cache.h"

namespace {

using namespace qf;

__device__ SfuView device_view;

struct Tally {
  unsigned long long inputs, wrong;
  uint32_t x, y, expected, found;
};

enum Function {
  kEx2,
  kRcp,
  kRsqrt,
  kLg2,
  kExpf,
  kAddExp,
  kLogf,
  kRsqrtf,
  kSinf,
  kCosf,
  kPowf,
  kPowfOrdinary,
  kFunctions
};
const char* const kNames[] = {"ex2.approx.ftz", "rcp.approx.ftz", "rsqrt.approx.ftz", "lg2.approx.ftz", "expf",
                              "c + expf",       "logf",           "rsqrtf",           "sinf",           "cosf",
                              "powf random",    "powf ordinary"};

__device__ uint64_t mix(uint64_t x) {  // splitmix64
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

template <int F>
__device__ void evaluate(uint32_t i, float& x, float& y, float& expected, float& found) {
  const SfuView sfu = device_view;
  x = __uint_as_float(i);
  y = 0.0f;
  if constexpr (F == kEx2) {
    asm volatile("ex2.approx.ftz.f32 %0, %1;" : "=f"(expected) : "f"(x));
    found = sfu.ex2(x);
  } else if constexpr (F == kRcp) {
    asm volatile("rcp.approx.ftz.f32 %0, %1;" : "=f"(expected) : "f"(x));
    found = sfu.rcp(x);
  } else if constexpr (F == kRsqrt) {
    asm volatile("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(expected) : "f"(x));
    found = sfu.rsqrt(x);
  } else if constexpr (F == kLg2) {
    asm volatile("lg2.approx.ftz.f32 %0, %1;" : "=f"(expected) : "f"(x));
    found = sfu.lg2(x);
  } else if constexpr (F == kExpf) {
    expected = expf(x);
    found = cuda_expf(sfu, x);
  } else if constexpr (F == kAddExp) {
    y = __uint_as_float(0x38000000u + static_cast<uint32_t>(mix(i) % 0x10000000u));  // 3e-5 .. 8e9
    expected = y + expf(x);
    found = cuda_add_exp(sfu, y, x);
  } else if constexpr (F == kLogf) {
    expected = logf(x);
    found = cuda_logf(x);
  } else if constexpr (F == kRsqrtf) {
    expected = rsqrtf(x);
    found = cuda_rsqrtf(sfu, x);
  } else if constexpr (F == kSinf) {
    expected = sinf(x);
    found = cuda_sinf(x);
  } else if constexpr (F == kCosf) {
    expected = cosf(x);
    found = cuda_cosf(x);
  } else {
    const uint64_t random = mix(i);
    x = __uint_as_float(static_cast<uint32_t>(random));
    y = __uint_as_float(static_cast<uint32_t>(random >> 32));
    if (F == kPowfOrdinary) {  // moderate exponents, so that results are finite; some of them whole numbers
      x = __uint_as_float((static_cast<uint32_t>(random) & 0x87FFFFFFu) + 0x3C000000u);
      y = static_cast<float>(static_cast<int32_t>(random >> 32)) * 0x1p-27f;
      if (i & 1u) y = truncf(y);
    }
    expected = powf(x, y);
    found = cuda_powf(sfu, x, y);
  }
}

template <int F>
__global__ void compare(Tally* tally) {
  unsigned long long inputs = 0, wrong = 0;
  const uint64_t step = static_cast<uint64_t>(gridDim.x) * blockDim.x;
  for (uint64_t i = blockIdx.x * static_cast<uint64_t>(blockDim.x) + threadIdx.x; i < (1ull << 32); i += step) {
    float x, y, expected, found;
    ++inputs;
    evaluate<F>(static_cast<uint32_t>(i), x, y, expected, found);
    if (__float_as_uint(expected) == __float_as_uint(found) || (expected != expected && found != found)) continue;
    if (wrong++ == 0 && atomicCAS(&tally->x, 0xFFFFFFFFu, __float_as_uint(x)) == 0xFFFFFFFFu) {
      tally->y = __float_as_uint(y);
      tally->expected = __float_as_uint(expected);
      tally->found = __float_as_uint(found);
    }
  }
  atomicAdd(&tally->inputs, inputs);
  if (wrong) atomicAdd(&tally->wrong, wrong);
}

/// The cache as torch's kernels compute it, with the device's own functions.
__global__ void native_rope(float theta, int dim, int positions, float* cache) {
  const int half = dim / 2, index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= positions * half) return;
  const int position = index / half, i = index % half;
  const float frequency = 1.0f / powf(theta, __fdiv_rn(static_cast<float>(2 * i), static_cast<float>(dim)));
  const float angle = __fmul_rn(static_cast<float>(position), frequency);
  cache[position * dim + i] = cosf(angle);
  cache[position * dim + half + i] = sinf(angle);
}

template <class T>
std::vector<T> read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<char> bytes((std::istreambuf_iterator<char>(file)), {});
  return {reinterpret_cast<T*>(bytes.data()), reinterpret_cast<T*>(bytes.data() + bytes.size())};
}

template <class T>
const T* upload(const T* host, size_t count) {
  T* device = nullptr;
  cudaMalloc(&device, count * sizeof(T));
  cudaMemcpy(device, host, count * sizeof(T), cudaMemcpyHostToDevice);
  return device;
}

SfuCurve upload(const SfuCurve& c) { return {upload(c.pieces, 128), upload(c.carries, size_t{1} << 17)}; }
SfuLogCurve upload(const SfuLogCurve& c) {
  return {upload(c.nearest, size_t{1} << 19), upload(c.first, (size_t{1} << 17) + 1),
          upload(c.residual, size_t{1} << 23)};
}

template <int F>
long run_from(Tally* device) {
  if constexpr (F == kFunctions) {
    return 0;
  } else {
    Tally tally{0, 0, 0xFFFFFFFFu, 0, 0, 0};
    cudaMemcpy(device, &tally, sizeof tally, cudaMemcpyHostToDevice);
    compare<F><<<132 * 16, 256>>>(device);
    cudaMemcpy(&tally, device, sizeof tally, cudaMemcpyDeviceToHost);
    std::printf("%-18s %llu inputs, %llu wrong", kNames[F], tally.inputs, tally.wrong);
    if (tally.wrong)
      std::printf(", e.g. (%08x, %08x): GPU %08x, ours %08x", tally.x, tally.y, tally.expected, tally.found);
    std::printf("\n");
    std::fflush(stdout);
    return static_cast<long>(tally.wrong != 0 || tally.inputs != 1ull << 32) + run_from<F + 1>(device);
  }
}

/// Our cache is made on the host here: this also checks the host's compilation of the headers.
long check_rope(const SfuTables& tables, float theta, int dim) {
  const int positions = 8192;
  const size_t count = static_cast<size_t>(positions) * dim;
  float* device = nullptr;
  cudaMalloc(&device, count * sizeof(float));
  native_rope<<<(positions * dim / 2 + 255) / 256, 256>>>(theta, dim, positions, device);
  std::vector<float> native(count);
  cudaMemcpy(native.data(), device, count * sizeof(float), cudaMemcpyDeviceToHost);
  cudaFree(device);
  const std::vector<float> ours = rope_cache(tables, theta, dim, positions, {});
  long wrong = 0, wrong_half = 0;
  for (size_t i = 0; i < count; ++i) {
    wrong += float_bits(native[i]) != float_bits(ours[i]);
    wrong_half += float_to_half(native[i]) != float_to_half(ours[i]);
  }
  std::printf("rope cache theta %g, d %d: %zu entries, %ld wrong (%ld in fp16)\n", theta, dim, count, wrong,
              wrong_half);
  return wrong != 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::printf("usage: cuda_math_check <directory of unpack_sfu.py>\n");
    return 2;
  }
  if (const cudaError_t status = cudaFree(nullptr); status != cudaSuccess) {
    std::printf("no usable GPU: %s\n", cudaGetErrorString(status));
    return 2;
  }
  const std::string folder = argv[1];
  const auto e = read<int8_t>(folder + "/ex2_23"), c = read<int8_t>(folder + "/rcp"),
             q = read<int8_t>(folder + "/rsqrt");
  const auto l = read<uint8_t>(folder + "/lg2"), b = read<uint8_t>(folder + "/lg2_below1");
  const SfuTables tables(SfuDifferences{e, c, q, l, b});
  const SfuView& v = tables.view();
  const SfuView view{upload(v.ex2_curve), upload(v.rcp_curve), upload(v.rsqrt_even),
                     upload(v.rsqrt_odd), upload(v.lg2_above), upload(v.lg2_below)};
  cudaMemcpyToSymbol(device_view, &view, sizeof view);
  Tally* tally = nullptr;
  cudaMalloc(&tally, sizeof(Tally));
  long bad = run_from<0>(tally);
  for (float theta : {1e4f, 1e5f, 5e5f, 1e6f}) {
    for (int dim : {64, 128}) bad += check_rope(tables, theta, dim);
  }
  const cudaError_t status = cudaDeviceSynchronize();
  std::printf("%s; %ld kinds differ\n", cudaGetErrorString(status), bad);
  return status != cudaSuccess || bad != 0;
}
