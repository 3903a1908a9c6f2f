// Products summed on a grid by conversions, on CUDA cores: a product of two 16-bit numbers is exact in fp32, times
// 2^(F - E) it is exact too, and the conversion to int32 truncates toward zero (numerics/chain_tile.h has the CPU's
// form). A product below fp32's normal numbers is less than one grid unit, also after it was rounded.
//
// For GPUs whose FP64 units are few; one conversion per product bounds it.
#pragma once

#include "numerics/cuda/grid_step.cuh"

namespace qf::cuda {

template <class Format, int kProducts>
struct ConvertedSum {
  static constexpr int kPairs = kProducts / 2, blocks = kProducts == 16 ? 2 : 3;
  /// Two rows of an operand, all k of the step in pairs.
  struct Side {
    StepExponents<kProducts> exponents;
    uint32_t pairs[2][kPairs];
    SharedRows rows;
  };
  struct Left : Side {};
  struct Right : Side {};

  __device__ explicit ConvertedSum(const MatrixUnit&) {}
  __device__ static void load(Side& out, const uint16_t* rows, int first, int apart) {
#pragma unroll
    for (int i = 0; i < 2; ++i) load_pairs<kPairs>(out.pairs[i], rows + (first + i * apart) * kLd);
  }
  __device__ void load(Left& out, const uint16_t* rows, const LaneTile& lane) const { load(out, rows, lane.g, 8); }
  __device__ void load(Right& out, const uint16_t* rows, const LaneTile& lane) const { load(out, rows, 2 * lane.t, 1); }

  __device__ void run(int (&total)[4], const OutputGrid (&grid)[4], const Left& a, const Right& b) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) total[i] = 0;
#pragma unroll
    for (int j = 0; j < kPairs; ++j) {
      const float2 left[2] = {finite_pair<Format>(a.pairs[0][j]), finite_pair<Format>(a.pairs[1][j])};
      const float2 right[2] = {finite_pair<Format>(b.pairs[0][j]), finite_pair<Format>(b.pairs[1][j])};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 x = left[i / 2], y = right[i % 2];
        total[i] += __float2int_rz(x.x * y.x * grid[i].scale) + __float2int_rz(x.y * y.y * grid[i].scale);
      }
    }
  }
};

}  // namespace qf::cuda
