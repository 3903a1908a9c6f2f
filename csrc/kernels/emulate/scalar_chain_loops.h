// The fp32 chains over 16 columns at a time, written once for a type `Lanes` of 16 floats per instruction set:
//   Lanes::Vector, load(p), store(p, v), all(x), zero(), mul(a, b), fma(a, b, c)
#pragma once

#include "kernels/emulate/scalar_chain.h"

namespace qf {

/// acc[row][column] = fma(a, w, acc) for `count` k ascending; R rows share a weight load.
template <class Lanes, int R>
void float_block(const float* rows, int64_t ld, const float* weight, int64_t count, typename Lanes::Vector (&acc)[R]) {
  for (int64_t k = 0; k < count; ++k) {
    const typename Lanes::Vector w = Lanes::load(weight + k * kPanelWidth);
    for (int r = 0; r < R; ++r) acc[r] = Lanes::fma(Lanes::all(rows[r * ld + k]), w, acc[r]);
  }
}

template <class Lanes, int R>
void float_rows(const ScalarChainArgs& args, int row, int panel) {
  float* out = args.accumulator + row * args.accumulator_ld + panel * kPanelWidth;
  typename Lanes::Vector acc[R];
  for (int r = 0; r < R; ++r) acc[r] = Lanes::load(out + r * args.accumulator_ld);
  for (int64_t i = 0; i < args.walk.count; ++i) {
    const int64_t k = args.walk.start + i * args.walk.stride;
    float_block<Lanes, R>(args.rows + row * args.ld + k, args.ld, args.panels[panel].value + k * kPanelWidth,
                          args.walk.length, acc);
  }
  for (int r = 0; r < R; ++r) Lanes::store(out + r * args.accumulator_ld, acc[r]);
}

template <class Lanes>
void float_chains(const ScalarChainArgs& args) {
  for (int panel = 0; panel < args.panel_count; ++panel) {
    int row = 0;
    for (; row + 8 <= args.row_count; row += 8) float_rows<Lanes, 8>(args, row, panel);
    for (; row + 2 <= args.row_count; row += 2) float_rows<Lanes, 2>(args, row, panel);
    for (; row < args.row_count; ++row) float_rows<Lanes, 1>(args, row, panel);
  }
}

/// Integers below 2^24 in fp32: sums of int8 x int4 products over an activation group are exact.
template <class Lanes>
void int32_chains(const ScalarChainArgs& args) {
  for (int panel = 0; panel < args.panel_count; ++panel) {
    for (int row = 0; row < args.row_count; ++row) {
      float* out = args.accumulator + row * args.accumulator_ld + panel * kPanelWidth;
      typename Lanes::Vector acc = Lanes::load(out);
      for (int64_t i = 0; i < args.walk.count; ++i) {
        const int64_t begin = args.walk.start + i * args.walk.stride;
        for (int64_t k = begin; k < begin + args.walk.length; k += args.activation_group) {
          const int64_t absolute = args.k_origin + k;
          typename Lanes::Vector sum[1] = {Lanes::zero()};
          float_block<Lanes, 1>(args.rows + row * args.ld + k, args.ld, args.panels[panel].value + k * kPanelWidth,
                                args.activation_group, sum);
          const float row_scale = args.row_scale[row * args.row_scale_ld + absolute / args.activation_group];
          const auto scale = Lanes::load(args.panels[panel].scale + absolute / args.group * kPanelWidth);
          acc = Lanes::fma(sum[0], Lanes::mul(Lanes::all(row_scale), scale), acc);
        }
      }
      Lanes::store(out, acc);
    }
  }
}

}  // namespace qf
