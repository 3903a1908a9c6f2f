// Products summed on a grid by FP64 tensor cores that round toward zero.
//
// M = 2^52 * g is a double whose last bit is g. While a sum stays in [M, 2M), adding a product that is not negative, in
// one fused operation rounded toward zero, adds floor(product / g) * g exactly: the product is cut at the grid, and the
// order does not matter. The low word of the sum is then the integer. Signs are kept apart:
//
//   G = M + |a| |b|                      all products
//   Y = M + (a+ b-) + (a- b+)            those below zero; x+ = max(x, 0), x- = max(-x, 0)
//   P = low word of G - 2 * low word of Y
//
// At most 16 products of less than 4 * 2^F grid units: below 2^31, far from 2M.
//
// The rows' numbers go in as the bits of their fp32, moved to the place of a double's: that is x * 2^-896, also for
// zeros and subnormals. The columns' numbers are multiplied back to their own size, and M carries the 2^-896.
//
// mma.sync of FP64 is a chain of fused multiply-adds, each rounded as the suffix says (measured on an H200 by the tests
// of this scheme).
#pragma once

#include "numerics/cuda/grid_step.cuh"

namespace qf::cuda {

/// d = c + a * b, 16 x 8 outputs as in mma.cuh. Slot s of a and b is k t + 4 s; a[2 s]: row g, a[2 s + 1]: row g + 8.
__device__ __forceinline__ void mma_toward_zero(double (&d)[4], const double (&a)[2], const double (&b)[1],
                                                const double (&c)[4]) {
#if __CUDA_ARCH__ >= 900
  asm("mma.sync.aligned.m16n8k4.row.col.f64.f64.f64.f64.rz {%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%8,%9,%10};"
      : "=d"(d[0]), "=d"(d[1]), "=d"(d[2]), "=d"(d[3])
      : "d"(a[0]), "d"(a[1]), "d"(b[0]), "d"(c[0]), "d"(c[1]), "d"(c[2]), "d"(c[3]));
#else
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    asm("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64.rz {%0,%1}, {%2}, {%3}, {%4,%5};"
        : "=d"(d[2 * half]), "=d"(d[2 * half + 1])
        : "d"(a[half]), "d"(b[0]), "d"(c[2 * half]), "d"(c[2 * half + 1]));
  }
#endif
}
__device__ __forceinline__ void mma_toward_zero(double (&d)[4], const double (&a)[4], const double (&b)[2],
                                                const double (&c)[4]) {
#if __CUDA_ARCH__ >= 900
  asm("mma.sync.aligned.m16n8k8.row.col.f64.f64.f64.f64.rz {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
      : "=d"(d[0]), "=d"(d[1]), "=d"(d[2]), "=d"(d[3])
      : "d"(a[0]), "d"(a[1]), "d"(a[2]), "d"(a[3]), "d"(b[0]), "d"(b[1]), "d"(c[0]), "d"(c[1]), "d"(c[2]), "d"(c[3]));
#else
  mma_toward_zero(d, {a[0], a[1]}, {b[0]}, c);
  mma_toward_zero(d, {a[2], a[3]}, {b[1]}, d);
#endif
}
__device__ __forceinline__ void mma_toward_zero(double (&d)[4], const double (&a)[8], const double (&b)[4],
                                                const double (&c)[4]) {
#if __CUDA_ARCH__ >= 900
  asm("mma.sync.aligned.m16n8k16.row.col.f64.f64.f64.f64.rz {%0,%1,%2,%3}, {%4,%5,%6,%7,%8,%9,%10,%11}, "
      "{%12,%13,%14,%15}, {%16,%17,%18,%19};"
      : "=d"(d[0]), "=d"(d[1]), "=d"(d[2]), "=d"(d[3])
      : "d"(a[0]), "d"(a[1]), "d"(a[2]), "d"(a[3]), "d"(a[4]), "d"(a[5]), "d"(a[6]), "d"(a[7]), "d"(b[0]), "d"(b[1]),
        "d"(b[2]), "d"(b[3]), "d"(c[0]), "d"(c[1]), "d"(c[2]), "d"(c[3]));
#else
  mma_toward_zero(d, {a[0], a[1], a[2], a[3]}, {b[0], b[1]}, c);
  mma_toward_zero(d, {a[4], a[5], a[6], a[7]}, {b[2], b[3]}, d);
#endif
}

/// |x|, x+ and x- of the numbers in one instruction's operand.
template <int kNumbers>
struct Parts {
  double all[kNumbers], positive[kNumbers], negative[kNumbers];

  /// high: the high word of |x|, whose low word is zero; sign: any word with x's sign bit.
  __device__ void put(int at, uint32_t high, uint32_t sign) {
    const auto mask = static_cast<uint32_t>(static_cast<int32_t>(sign) >> 31);
    all[at] = of(high);
    positive[at] = of(high & ~mask);
    negative[at] = of(high & mask);
  }
  __device__ static double of(uint32_t high) { return __hiloint2double(static_cast<int>(high), 0); }
};

template <class Format, int kProducts>
struct Fp64Sum {
  static constexpr int kPer = kProducts / 4;  // k of a lane
  static constexpr int blocks = kProducts == 16 ? 2 : 3;
  struct Left {
    StepExponents<kProducts> exponents;
    Parts<2 * kPer> x;
    SharedRows rows;
  };
  struct Right {
    StepExponents<kProducts> exponents;
    Parts<kPer> x;
    SharedRows rows;
  };
  uint32_t offset;  // what makes M's high word of an exponent

  __device__ explicit Fp64Sum(const MatrixUnit& unit)
      : offset(static_cast<uint32_t>(52 - unit.fraction_bits - kSumOffset) << 20) {}

  /// High word of |x| * 2^-896; x: bits of an fp32.
  __device__ static uint32_t small(uint32_t x) { return x >> 3 & 0x0FFFFFFFu; }
  /// High word of |x|.
  __device__ static uint32_t full(uint32_t x) {
    return static_cast<uint32_t>(__double2hiint(__dmul_rn(Parts<1>::of(small(x)), 0x1p896)));
  }
  /// fp32 bits of k t * kPer + j of a row, for all j.
  __device__ static void numbers(uint32_t (&out)[kPer], const uint16_t* row) {
    if constexpr (kPer == 1) {
      out[0] = __float_as_uint(finite_number<Format>(row[0]));
    } else {
#pragma unroll
      for (int j = 0; j < kPer; j += 2) {
        const uint32_t pair = pair_at(row + j);
        out[j] = __float_as_uint(finite_number<Format>(static_cast<uint16_t>(pair)));
        out[j + 1] = __float_as_uint(finite_number<Format>(static_cast<uint16_t>(pair >> 16)));
      }
    }
  }
  __device__ void load(Left& out, const uint16_t* rows, const LaneTile& lane) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t x[kPer];
      numbers(x, rows + (lane.g + 8 * half) * kLd + lane.t * kPer);
#pragma unroll
      for (int j = 0; j < kPer; ++j) out.x.put(2 * j + half, small(x[j]), x[j]);
    }
  }
  __device__ void load(Right& out, const uint16_t* rows, const LaneTile& lane) const {
    uint32_t x[kPer];
    numbers(x, rows + lane.g * kLd + lane.t * kPer);
#pragma unroll
    for (int j = 0; j < kPer; ++j) out.x.put(j, full(x[j]), x[j]);
  }

  __device__ void run(int (&total)[4], const OutputGrid (&grid)[4], const Left& a, const Right& b) const {
    double base[4], all[4], some[4], negative[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) base[i] = Parts<1>::of((grid[i].exponent << 20) + offset);
    mma_toward_zero(all, a.x.all, b.x.all, base);
    mma_toward_zero(some, a.x.positive, b.x.negative, base);
    mma_toward_zero(negative, a.x.negative, b.x.positive, some);
#pragma unroll
    for (int i = 0; i < 4; ++i) total[i] = __double2loint(all[i]) - 2 * __double2loint(negative[i]);
  }
};

}  // namespace qf::cuda
