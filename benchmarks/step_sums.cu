// Four ways to sum a step's products on its grid (grid_step.cuh), timed and compared with the definition; three of them
// lose and live only here.
//
//   nvcc -std=c++20 -O3 -fmad=false -Icsrc -gencode arch=compute_90a,code=sm_90a benchmarks/step_sums.cu -o step_sums
//
// -gencode arch=compute_80,code=sm_90 times the code that older GPUs get (no add-max instructions, smaller mma).
//
//   converted  fp32 product (exact) * 2^(F - E) (exact), conversion toward zero to int32, integer sum
//   shifted    product of integer significands, funnel shift by E - e, sign by xor and a count of negative products
//   double     |a| * |b| + 2^52 g by FP64 FMA toward zero; the low word is the cut product; sign as in `shifted`
//   fp64       fp64_sum.cuh: the same on FP64 tensor cores, signs by two more products
#include <cstdio>
#include <vector>

#include "numerics/cuda/converted_sum.cuh"
#include "numerics/cuda/fp64_sum.cuh"

using namespace qf;
using namespace qf::cuda;

namespace {

constexpr int kThreads = 128, kChunk = 32;

/// Sign bits of a row's k, and masks per k.
template <int kProducts>
struct Signs {
  uint32_t packed, mask[kProducts];
  __device__ void load(const uint32_t (&pairs)[kProducts / 2]) {
    packed = 0;
#pragma unroll
    for (int j = 0; j < kProducts / 2; ++j) {
      packed |= (pairs[j] & 0x80008000u) >> j;
      asm("prmt.b32 %0, %1, 0, 0x9999;" : "=r"(mask[2 * j]) : "r"(pairs[j]));
      asm("prmt.b32 %0, %1, 0, 0xBBBB;" : "=r"(mask[2 * j + 1]) : "r"(pairs[j]));
    }
  }
};

template <class Format, int kProducts>
struct ShiftedSum {
  static constexpr int blocks = 2;
  struct Side {
    StepExponents<kProducts> exponents;
    Signs<kProducts> signs[2];
    uint32_t x[2][kProducts];
    SharedRows rows;
  };
  struct Left : Side {};
  struct Right : Side {};
  static constexpr int kMantissa = PinRange<Format>::mantissa;
  int lift;  // so that a product of the largest exponent is not shifted
  __device__ explicit ShiftedSum(const MatrixUnit& unit) : lift(unit.fraction_bits - 2 * kMantissa) {}
  __device__ static uint32_t significand(uint32_t bits) {
    const uint32_t magnitude = bits & 0x7FFFu, implicit = 1u << kMantissa;
    return (magnitude & (implicit - 1)) | (magnitude >= implicit ? implicit : 0u);
  }
  __device__ static void load(Side& out, const uint16_t* rows, int first, int apart, int shift) {
    uint32_t pairs[2][kProducts / 2];
    for (int i = 0; i < 2; ++i) load_pairs<kProducts / 2>(pairs[i], rows + (first + i * apart) * kLd);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      out.signs[i].load(pairs[i]);
#pragma unroll
      for (int k = 0; k < kProducts; ++k) out.x[i][k] = significand(pairs[i][k / 2] >> (16 * (k % 2))) << shift;
    }
  }
  __device__ void load(Left& out, const uint16_t* rows, const LaneTile& lane) const {
    load(out, rows, lane.g, 8, lift);
  }
  __device__ void load(Right& out, const uint16_t* rows, const LaneTile& lane) const {
    load(out, rows, 2 * lane.t, 1, 0);
  }
  __device__ void run(int (&total)[4], const OutputGrid (&grid)[4], const Left& a, const Right& b) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const Signs<kProducts>&left = a.signs[i / 2], &right = b.signs[i % 2];
      total[i] = __popc(left.packed ^ right.packed);
      const uint32_t largest = __byte_perm(grid[i].exponent, 0, 0x1010);
#pragma unroll
      for (int k = 0; k < kProducts; k += 2) {
        const uint32_t sums = add_s16x2(a.exponents.e[i / 2][k / 2], b.exponents.e[i % 2][k / 2]);
        const uint32_t apart = __vsub2(largest, sums);  // never negative
        const uint32_t low = __funnelshift_rc(a.x[i / 2][k] * b.x[i % 2][k], 0u, apart & 0xFFFFu);
        const uint32_t high = __funnelshift_rc(a.x[i / 2][k + 1] * b.x[i % 2][k + 1], 0u, apart >> 16);
        total[i] += static_cast<int>(low ^ left.mask[k] ^ right.mask[k]) +
                    static_cast<int>(high ^ left.mask[k + 1] ^ right.mask[k + 1]);
      }
    }
  }
};

template <class Format, int kProducts>
struct DoubleSum {
  static constexpr int blocks = 2;
  struct Side {
    StepExponents<kProducts> exponents;
    Signs<kProducts> signs[2];
    uint32_t x[2][kProducts];  // high words
    SharedRows rows;
  };
  struct Left : Side {};
  struct Right : Side {};
  uint32_t offset;
  __device__ explicit DoubleSum(const MatrixUnit& unit)
      : offset(static_cast<uint32_t>(52 - unit.fraction_bits - kSumOffset) << 20) {}
  template <bool kLeft>
  __device__ static void load(Side& out, const uint16_t* rows, int first, int apart) {
    uint32_t pairs[2][kProducts / 2];
    for (int i = 0; i < 2; ++i) load_pairs<kProducts / 2>(pairs[i], rows + (first + i * apart) * kLd);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      out.signs[i].load(pairs[i]);
#pragma unroll
      for (int k = 0; k < kProducts; ++k) {
        const auto bits = static_cast<uint16_t>(pairs[i][k / 2] >> (16 * (k % 2)));
        const uint32_t x = __float_as_uint(finite_number<Format>(bits));
        out.x[i][k] = kLeft ? Fp64Sum<Format, kProducts>::small(x) : Fp64Sum<Format, kProducts>::full(x);
      }
    }
  }
  __device__ void load(Left& out, const uint16_t* rows, const LaneTile& lane) const {
    load<true>(out, rows, lane.g, 8);
  }
  __device__ void load(Right& out, const uint16_t* rows, const LaneTile& lane) const {
    load<false>(out, rows, 2 * lane.t, 1);
  }
  __device__ static double of(uint32_t high) { return __hiloint2double(static_cast<int>(high), 0); }
  __device__ void run(int (&total)[4], const OutputGrid (&grid)[4], const Left& a, const Right& b) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const Signs<kProducts>&left = a.signs[i / 2], &right = b.signs[i % 2];
      total[i] = __popc(left.packed ^ right.packed);
      const double base = of((grid[i].exponent << 20) + offset);
#pragma unroll
      for (int k = 0; k < kProducts; ++k) {
        const int cut = __double2loint(__fma_rz(of(a.x[i / 2][k]), of(b.x[i % 2][k]), base));
        total[i] += static_cast<int>(static_cast<uint32_t>(cut) ^ left.mask[k] ^ right.mask[k]);
      }
    }
  }
};

// ---- one walk over K, out[m][n]

struct Problem {
  const uint16_t *w, *x;
  const int16_t *we, *xe;
  float* out;
  MatrixUnit unit;
  int m, n, k;
};

__device__ __forceinline__ void copy_async(void* shared, const void* global) {
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global));
}

template <class Scheme, int kTilesW, int kTilesR, int kBlocks>
__global__ void __launch_bounds__(kThreads, kBlocks) walk(const Problem p) {
  constexpr int kColumns = 2 * kTilesW * 16, kRows = 2 * kTilesR * 8, kAll = kColumns + kRows;
  __shared__ __align__(16) uint16_t value[2][kAll * kLd];
  __shared__ __align__(16) int16_t exponent[2][kAll * kLd];
  const int column = blockIdx.x * kColumns, row = blockIdx.y * kRows, warp = threadIdx.x / 32;
  const int first_w = warp % 2 * kTilesW * 16, first_r = kColumns + warp / 2 * kTilesR * 8;
  const auto fill = [&](int stage, int k) {
    for (int i = threadIdx.x; i < kAll * 4; i += kThreads) {
      const int at = i / 4, octet = i % 4 * 8;
      const bool left = at < kColumns;
      const int64_t from =
          static_cast<int64_t>(left ? column + at : min(row + at - kColumns, p.m - 1)) * p.k + k + octet;
      copy_async(&value[stage][at * kLd + octet], (left ? p.w : p.x) + from);
      copy_async(&exponent[stage][at * kLd + octet], (left ? p.we : p.xe) + from);
    }
    asm volatile("cp.async.commit_group;");
  };
  const Scheme scheme(p.unit);
  float c[kTilesW][kTilesR][4] = {};
  fill(0, 0);
  for (int k = 0, stage = 0; k < p.k; k += kChunk, stage ^= 1) {
    asm volatile("cp.async.wait_group 0;");
    __syncthreads();
    if (k + kChunk < p.k) fill(stage ^ 1, k + kChunk);
    const auto rows = [&](int first) { return Rows{value[stage] + first * kLd, exponent[stage] + first * kLd}; };
#pragma unroll 1
    for (int at = 0; at < kChunk; at += scheme.step()) {
      typename Scheme::Left left[kTilesW];
#pragma unroll
      for (int i = 0; i < kTilesW; ++i) left[i] = scheme.left(rows(first_w + 16 * i), at);
#pragma unroll
      for (int j = 0; j < kTilesR; ++j) {
        const auto right = scheme.right(rows(first_r + 8 * j), at);
#pragma unroll
        for (int i = 0; i < kTilesW; ++i) scheme.run(c[i][j], left[i], right);
      }
    }
  }
  const LaneTile lane;
  for (int i = 0; i < kTilesW; ++i)
    for (int j = 0; j < kTilesR; ++j)
      for (int q = 0; q < 4; ++q) {
        const int m = row + first_r - kColumns + 8 * j + lane.column(q);
        if (m < p.m) p.out[static_cast<int64_t>(m) * p.n + column + first_w + 16 * i + lane.row(q)] = c[i][j][q];
      }
}

// ---- data and comparison

__device__ uint32_t mix(uint32_t x) {  // lowbias32 (Wellons)
  x ^= x >> 16, x *= 0x7FEB352Du, x ^= x >> 15, x *= 0x846CA68Bu;
  return x ^ x >> 16;
}

template <class Format>
__global__ void make(uint16_t* value, int16_t* exponent, int64_t count, int family, uint32_t seed, int bias) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i >= count) return;
  constexpr bool bf16 = PinRange<Format>::bias == 127;
  const auto number_at = [&](int64_t at) {
    float sum = -2.0f;
    for (uint32_t j = 0; j < 4; ++j)
      sum += static_cast<float>(mix(static_cast<uint32_t>(at) * 4 + j + seed) >> 8) * 0x1p-24f;
    return sum;
  };
  const uint32_t r = mix(static_cast<uint32_t>(i) ^ seed * 77);
  float x = number_at(family == 2 ? i & ~int64_t{1} : i);
  if (family == 1) x *= exp2_int(static_cast<int>(r % 24) - 14);                                      // wide
  if (family == 2 && i % 2 == 1 && bias == 0) x = -x * (1.0f + static_cast<float>(r % 3) * 0x1p-9f);  // cancelling
  if (family == 3) x = r % 3 == 0 ? 0.0f : x * 0x1p-16f;  // subnormals and zeros
  uint16_t bits = bf16 ? float_to_bf16(x) : float_to_half(x);
  if (family >= 4) {  // any bits; 5: some Inf and NaN
    bits = static_cast<uint16_t>(r);
    constexpr uint16_t exponent_bits = bf16 ? 0x7F80 : 0x7C00;
    if ((bits & exponent_bits) == exponent_bits && (family == 4 || r >> 16 & 15))
      bits &= static_cast<uint16_t>(~0x4000u);
  }
  value[i] = bits;
  exponent[i] =
      static_cast<int16_t>(marked_exponent(number<Format>(bits), PinRange<Format>::bias == 127 ? -126 : -14) + bias);
}

__global__ void compare(const float* a, const float* b, int64_t count, unsigned long long* differing) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i < count && __float_as_uint(a[i]) != __float_as_uint(b[i]) && !(a[i] != a[i] && b[i] != b[i]))
    atomicAdd(differing, 1ull);
}

/// Eight independent chains per warp: what the FP64 tensor cores give.
template <int kSlots>
__global__ void __launch_bounds__(kThreads) fp64_peak(double* out, int rounds) {
  double a[2 * kSlots], b[kSlots], d[8][4] = {};
  for (int i = 0; i < 2 * kSlots; ++i) a[i] = 1.0 + threadIdx.x * i;
  for (int i = 0; i < kSlots; ++i) b[i] = 0.5 + threadIdx.x * i;
  for (int r = 0; r < rounds; ++r)
#pragma unroll
    for (auto& chain : d) mma_toward_zero(chain, a, b, chain);
  double sum = 0.0;
  for (const auto& chain : d)
    for (const double x : chain) sum += x;
  if (sum == -1.0) *out = sum;
}

constexpr const char* kFamilies[] = {"plain", "wide", "cancelling", "subnormal", "any", "special"};

struct Bench {
  int m = 256, n = 4096, k = 4096;
  uint16_t *w, *x;
  int16_t *we, *xe;
  float *wanted, *found;
  unsigned long long* differing;
  cudaEvent_t begin, end;
  unsigned long long compared = 0;

  Bench() {
    cudaMalloc(&w, size_t(n) * k * 2), cudaMalloc(&we, size_t(n) * k * 2);
    cudaMalloc(&x, size_t(m) * k * 2), cudaMalloc(&xe, size_t(m) * k * 2);
    cudaMalloc(&wanted, size_t(m) * n * 4), cudaMalloc(&found, size_t(m) * n * 4);
    cudaMalloc(&differing, 8);
    cudaEventCreate(&begin), cudaEventCreate(&end);
  }
  template <class Format>
  void data(int family) {
    const int64_t nw = int64_t(n) * k, nx = int64_t(m) * k;
    make<Format><<<unsigned((nw + 255) / 256), 256>>>(w, we, nw, family, 1, 0);
    make<Format><<<unsigned((nx + 255) / 256), 256>>>(x, xe, nx, family, 99991, 127);
  }
  template <class Scheme, int kTilesW, int kTilesR, int kBlocks>
  void launch(MatrixUnit unit, float* out, int rows) {
    const Problem p{w, x, we, xe, out, unit, rows, n, k};
    walk<Scheme, kTilesW, kTilesR, kBlocks>
        <<<dim3(unsigned(n / (32 * kTilesW)), unsigned((rows + 16 * kTilesR - 1) / (16 * kTilesR))), kThreads>>>(p);
  }
  template <class Format>
  void define(MatrixUnit unit, int rows) {
    launch<Definition<Format>, 1, 1, 4>(unit, wanted, rows);
  }
  template <class Scheme, int kTilesW, int kTilesR, int kBlocks>
  unsigned long long differ(MatrixUnit unit, int rows) {
    launch<Scheme, kTilesW, kTilesR, kBlocks>(unit, found, rows);
    cudaMemset(differing, 0, 8);
    const int64_t count = int64_t(rows) * n;
    compare<<<unsigned((count + 255) / 256), 256>>>(wanted, found, count, differing);
    unsigned long long out = ~0ull;
    const cudaError_t error = cudaMemcpy(&out, differing, 8, cudaMemcpyDeviceToHost);
    if (error != cudaSuccess) printf("%s\n", cudaGetErrorString(error));
    compared += static_cast<unsigned long long>(count);
    return out;
  }
  template <int kSlots>
  void peak() {
    constexpr int kRounds = 2000, kGrid = 132 * 4;
    float ms = 0.0f;
    for (int i = 0; i < 3; ++i) {
      cudaEventRecord(begin);
      fp64_peak<kSlots><<<kGrid, kThreads>>>(reinterpret_cast<double*>(found), kRounds);
      cudaEventRecord(end);
      cudaEventSynchronize(end);
      cudaEventElapsedTime(&ms, begin, end);
    }
    const double products = double(kGrid) * (kThreads / 32) * 8 * kRounds * 16 * 8 * 4 * kSlots;
    printf("FP64 tensor cores, 16 x 8 x %d toward zero: %.2e products/s\n", 4 * kSlots, products / ms * 1e3);
  }
  template <class Scheme, int kTilesW, int kTilesR, int kBlocks>
  void time(const char* name, MatrixUnit unit, int rows) {
    float best = 1e30f;
    for (int i = 0; i < 4; ++i) {
      cudaEventRecord(begin);
      launch<Scheme, kTilesW, kTilesR, kBlocks>(unit, found, rows);
      cudaEventRecord(end);
      cudaEventSynchronize(end);
      float ms;
      cudaEventElapsedTime(&ms, begin, end);
      if (i > 0 && ms < best) best = ms;
    }
    printf("%-10s %2d x F %d  tiles %dx%d blocks %d  M %3d  %8.3f ms  %.2e products/s\n", name, unit.products,
           unit.fraction_bits, kTilesW, kTilesR, kBlocks, rows, double(best), double(rows) * n * k / best * 1e3);
  }
};

template <class Format, int kProducts, template <class, int> class Sum>
using Of = GridStep<Format, float, kProducts, Sum<Format, kProducts>>;

template <class Format, int kProducts>
void check(Bench& bench, int fraction, const char* format) {
  constexpr int lowest = PinRange<Format>::bias == 127 ? -126 : -14;
  const MatrixUnit unit{kProducts, fraction, Rounding::fp32_toward_zero, -108 - fraction, lowest};
  MatrixUnit other = unit;
  other.fraction_bits = fraction - 1;
  for (int family = 0; family < 6; ++family) {
    bench.data<Format>(family);
    bench.define<Format>(unit, 64);
    const auto converted = bench.differ<Of<Format, kProducts, ConvertedSum>, 1, 2, 2>(unit, 64);
    const auto shifted = bench.differ<Of<Format, kProducts, ShiftedSum>, 1, 2, 2>(unit, 64);
    const auto doubled = bench.differ<Of<Format, kProducts, DoubleSum>, 1, 2, 2>(unit, 64);
    const auto fp64 = bench.differ<Of<Format, kProducts, Fp64Sum>, 1, 2, 3>(unit, 64);
    const auto control = bench.differ<Of<Format, kProducts, Fp64Sum>, 1, 2, 3>(other, 64);
    printf("%s %2d x F %d %-10s differing: converted %llu shifted %llu double %llu fp64 %llu; control %llu\n", format,
           kProducts, fraction, kFamilies[family], converted, shifted, doubled, fp64, control);
  }
}

template <int kProducts, template <class, int> class Sum>
void time(Bench& bench, const char* name, int fraction) {
  const MatrixUnit unit{kProducts, fraction, Rounding::fp32_toward_zero, -108 - fraction, -14};
  constexpr int blocks = Sum<Fp16, kProducts>::blocks;
  bench.time<Of<Fp16, kProducts, Sum>, 1, 2, 3>(name, unit, 256);
  bench.time<Of<Fp16, kProducts, Sum>, 1, 2, 4>(name, unit, 256);
  bench.time<Of<Fp16, kProducts, Sum>, 2, 2, blocks>(name, unit, 256);
  bench.time<Of<Fp16, kProducts, Sum>, 1, 4, blocks>(name, unit, 256);
  bench.time<Of<Fp16, kProducts, Sum>, 1, 1, 4>(name, unit, 1);
}

}  // namespace

#ifndef PROBE
int main() {
  Bench bench;
  check<Fp16, 8>(bench, 24, "fp16");
  check<Fp16, 16>(bench, 25, "fp16");
  check<Bf16, 8>(bench, 24, "bf16");
  check<Bf16, 16>(bench, 25, "bf16");
  check<Fp16, 4>(bench, 23, "fp16");
  printf("%llu outputs of K = %d compared\n", bench.compared, bench.k);
  bench.peak<1>(), bench.peak<2>(), bench.peak<4>();
  bench.data<Fp16>(0);
  time<8, ConvertedSum>(bench, "converted", 24), time<16, ConvertedSum>(bench, "converted", 25);
  time<8, ShiftedSum>(bench, "shifted", 24), time<16, ShiftedSum>(bench, "shifted", 25);
  time<8, DoubleSum>(bench, "double", 24), time<16, DoubleSum>(bench, "double", 25);
  time<8, Fp64Sum>(bench, "fp64", 24), time<16, Fp64Sum>(bench, "fp64", 25), time<4, Fp64Sum>(bench, "fp64", 23);
  time<4, ConvertedSum>(bench, "converted", 23);
  bench.time<Definition<Fp16>, 1, 1, 4>("definition", {8, 24, Rounding::fp32_toward_zero, -132, -14}, 256);
  bench.time<Definition<Fp16>, 1, 1, 4>("definition", {16, 25, Rounding::fp32_toward_zero, -133, -14}, 256);
  bench.time<Pinned<Fp16, float, 8>, 2, 2, 4>("pinned", {8, 24, Rounding::fp32_toward_zero, -132, -14}, 256);
  return cudaGetLastError() != cudaSuccess;
}
#endif
