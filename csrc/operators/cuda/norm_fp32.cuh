// RMS norm in fp32 with a sum in double, as rms_norm_fp32.cpp has it.
#pragma once

#include "base/cuda/check.h"
#include "operators/cuda/device_context.h"
#include "operators/cuda/serial_sum.cuh"
#include "operators/cuda/stored.cuh"
#include "operators/elements.h"

namespace qf::cuda {

/// One row: read(i) gives element i (asked once), again(i) the same.
template <class Read, class Again>
__device__ void norm_row(const Read& read, const Again& again, const float* weight, int64_t columns, float epsilon,
                         float* out) {
  __shared__ double tiles[2 * kSerialTile];
  const auto square = [&](int64_t i) {
    const double x = static_cast<double>(read(i));
    return __dmul_rn(x, x);
  };
  const double mean = __ddiv_rn(serial_sum(columns, square, tiles), static_cast<double>(columns));
  const double root = __dsqrt_rn(__dadd_rn(mean, static_cast<double>(epsilon)));
  const float scale = __double2float_rn(__ddiv_rn(1.0, root));
  for (int64_t i = threadIdx.x; i < columns; i += kSerialThreads) {
    out[i] = one_nan(__fmul_rn(__fmul_rn(again(i), scale), weight[i]));
  }
}

}  // namespace qf::cuda
