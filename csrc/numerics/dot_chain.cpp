#include "numerics/dot_chain.h"

namespace qf {
namespace {

void chain_oracle(const ChainArgs& args) {
  for (int row = 0; row < args.row_count; ++row) {
    const float* a = args.rows.value + row * args.rows.ld;
    for (int panel = 0; panel < args.panel_count; ++panel) {
      const float* w = args.panels[panel].value;
      float* out = args.accumulator + row * args.accumulator_ld + panel * kPanelWidth;
      for (int column = 0; column < kPanelWidth; ++column) {
        float acc = out[column];
        for (int64_t i = 0; i < args.walk.count; ++i) {
          const int64_t begin = args.walk.start + i * args.walk.stride;
          const float* wk = w + begin * kPanelWidth + column;
          if (args.accumulate == Accumulate::carried) {
            acc = fused_dot_add(args.unit, a + begin, 1, wk, kPanelWidth, args.walk.length, acc);
            continue;
          }
          for (int64_t j = 0; j < args.walk.length; j += 16) {
            const int64_t n = args.walk.length - j < 16 ? args.walk.length - j : 16;
            acc += fused_dot_add(args.unit, a + begin + j, 1, wk + j * kPanelWidth, kPanelWidth, n, 0.0f);
          }
        }
        out[column] = acc;
      }
    }
  }
}

}  // namespace

void dot_chain(Isa /*isa*/, const ChainArgs& args) { chain_oracle(args); }

}  // namespace qf
