// The fp32 chains as plain loops over 16 columns, compiled once per instruction set: everything is in an unnamed
// namespace, so that each translation unit keeps its own machine code.
#pragma once

#include <cmath>

#include "kernels/emulate/scalar_chain.h"

namespace qf {
namespace {

/// acc[row][column] = fma(a, w, acc) for k ascending; R rows share a weight load.
template <int R>
void float_block(const float* rows, int64_t ld, const float* weight, int64_t count, float* accumulator,
                 int64_t accumulator_ld) {
  float acc[R][kPanelWidth];
  for (int r = 0; r < R; ++r) {
    for (int c = 0; c < kPanelWidth; ++c) acc[r][c] = accumulator[r * accumulator_ld + c];
  }
  for (int64_t k = 0; k < count; ++k) {
    for (int r = 0; r < R; ++r) {
      const float a = rows[r * ld + k];
      for (int c = 0; c < kPanelWidth; ++c) acc[r][c] = __builtin_fmaf(a, weight[k * kPanelWidth + c], acc[r][c]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int c = 0; c < kPanelWidth; ++c) accumulator[r * accumulator_ld + c] = acc[r][c];
  }
}

void float_loops(const ScalarChainArgs& args) {
  for (int panel = 0; panel < args.panel_count; ++panel) {
    for (int64_t i = 0; i < args.walk.count; ++i) {
      const int64_t k = args.walk.start + i * args.walk.stride;
      const float* weight = args.panels[panel].value + k * kPanelWidth;
      float* out = args.accumulator + panel * kPanelWidth;
      int row = 0;
      for (; row + 8 <= args.row_count; row += 8) {
        float_block<8>(args.rows + row * args.ld + k, args.ld, weight, args.walk.length,
                       out + row * args.accumulator_ld, args.accumulator_ld);
      }
      for (; row < args.row_count; ++row) {
        float_block<1>(args.rows + row * args.ld + k, args.ld, weight, args.walk.length,
                       out + row * args.accumulator_ld, args.accumulator_ld);
      }
    }
  }
}

/// Integers below 2^24 in fp32: sums of int8 x int4 products over an activation group are exact.
void int32_loops(const ScalarChainArgs& args) {
  for (int panel = 0; panel < args.panel_count; ++panel) {
    for (int row = 0; row < args.row_count; ++row) {
      float* out = args.accumulator + row * args.accumulator_ld + panel * kPanelWidth;
      for (int64_t i = 0; i < args.walk.count; ++i) {
        const int64_t begin = args.walk.start + i * args.walk.stride;
        for (int64_t k = begin; k < begin + args.walk.length; k += args.activation_group) {
          const int64_t absolute = args.k_origin + k;
          float sum[kPanelWidth] = {};
          float_block<1>(args.rows + row * args.ld + k, args.ld, args.panels[panel].value + k * kPanelWidth,
                         args.activation_group, sum, kPanelWidth);
          const float row_scale = args.row_scale[row * args.row_scale_ld + absolute / args.activation_group];
          const float* scale = args.panels[panel].scale + absolute / args.group * kPanelWidth;
          for (int c = 0; c < kPanelWidth; ++c) out[c] = __builtin_fmaf(sum[c], row_scale * scale[c], out[c]);
        }
      }
    }
  }
}

}  // namespace
}  // namespace qf
