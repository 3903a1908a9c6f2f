// One group of up to four panels (64 columns) of a row block, start to end: dequantize a stretch of K, run every leaf's
// share of it, next stretch; then combine. One job writes its own outputs only.
#pragma once

#include "kernels/emulate/activations.h"
#include "kernels/gemm.h"
#include "kernels/pack/packed_weight.h"

namespace qf {

inline constexpr int64_t kGroupPanels = 4;

struct CallState {
  const Plan& plan;
  const PackedWeight& weight;
  const GemmArgs& args;
  const ExecutorContext& context;
  const Activations& activations;
  float* leaves;      // [leaf][m][n] instead of outputs, or null
  int64_t row_begin;  // rows [row_begin, row_begin + activations.rows) of the call
};

void run_panel_group(const CallState& call, int64_t panel_group);

}  // namespace qf
