#include "numerics/dot_chain.h"

#include "base/error.h"
#include "numerics/chain_isa.h"

namespace qf {

float chain_exact_step(const MatrixUnit& unit, const float* a, const float* b, int count, float c) {
  return fused_dot_add_step(unit, a, 1, b, kPanelWidth, count, c);
}

void dot_chain_oracle(const ChainArgs& args) {
  const KWalk& walk = args.walk;
  for (int row = 0; row < args.row_count; ++row) {
    const float* a = args.rows.value + row * args.rows.ld;
    for (int column = 0; column < args.panel_count * kPanelWidth; ++column) {
      const float* w = args.panels[column / kPanelWidth].value + column % kPanelWidth;
      float& acc = args.accumulator[row * args.accumulator_ld + column];
      for (int64_t i = 0; i < walk.count; ++i) {
        const int64_t begin = walk.start + i * walk.stride, end = begin + walk.length;
        if (args.accumulate == Accumulate::carried) {
          acc = fused_dot_add(args.unit, a + begin, 1, w + begin * kPanelWidth, kPanelWidth, walk.length, acc);
          continue;
        }
        for (int64_t k = begin; k < end; k += 16) {
          acc +=
              fused_dot_add(args.unit, a + k, 1, w + k * kPanelWidth, kPanelWidth, end - k < 16 ? end - k : 16, 0.0f);
        }
      }
    }
  }
}

void dot_chain(Isa isa, const ChainArgs& args) {
  const int64_t unit_length = args.accumulate == Accumulate::carried ? args.unit.products : 16;
  // the fast form relies on terms of at most 25 fraction bits, whole steps, and in fp16 results on a zero exponent that
  // lies above every sum with a zero's code
  const bool half = args.unit.rounding == Rounding::fp16_nearest_even;
  bool fast = args.unit.fraction_bits <= 25 && (!half || args.unit.zero_exponent >= -28) &&
              args.unit.rounding != Rounding::e8m13_toward_zero && args.walk.length % unit_length == 0;
  const int per_cell = panels_per_cell(args.unit.input_exponent);
  for (int panel = 0; fast && panel < args.panel_count;) {
    const int left = args.panel_count - panel, lane = args.panels[panel].codes.lane;
    const int most = lane == 0 ? kMaxPanels : per_cell - lane;  // up to where the shared cells end
    ChainArgs part = args;
    part.panels += panel;
    part.panel_count = left < most ? left : most;
    part.accumulator += panel * kPanelWidth;
    panel += part.panel_count;
    switch (isa) {
      case Isa::portable: fast = chain_portable(part); break;
#if defined(__x86_64__)
      case Isa::avx2: fast = chain_avx2(part); break;
      case Isa::avx512: fast = chain_avx512(part); break;
#else
      default: throw Error("this build has only the portable executor");
#endif
    }
  }
  if (!fast) dot_chain_oracle(args);
}

}  // namespace qf
