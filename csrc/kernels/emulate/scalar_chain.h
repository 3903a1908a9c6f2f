// Chains that no matrix unit runs: fp16 FMA pairs (exllama), fp32 FMAs, exact integer sums. Same shape as dot_chain.
#pragma once

#include "kernels/plan.h"
#include "numerics/dot_chain.h"
#include "numerics/isa.h"

namespace qf {

/// One panel: value[k * 16 + column] as in dot_chain; scale[(k / group) * 16 + column] with k counted from k_origin.
struct ScaledPanel {
  const float* value;
  const float* scale;
};

struct ScalarChainArgs {
  KWalk walk;                // relative to the values' first k
  int64_t k_origin;          // absolute k of the values' first k: finds groups
  int64_t group;             // k per weight scale
  int64_t activation_group;  // int32: k per activation scale
  const float* rows;         // [row_count][ld], fp16 numbers (half2), any (float), int8 numbers (int32)
  const float* row_scale;    // int32: [row_count][row_scale_ld], by absolute k / activation_group
  int64_t ld;
  int64_t row_scale_ld;
  int row_count;
  const ScaledPanel* panels;  // [panel_count]
  int panel_count;
  float* accumulator;  // [row_count][panel_count * 16]
  int64_t accumulator_ld;
};

/// StepRule::half2_chain. walk.start and length are multiples of 8; a group owns a multiple of 8 k.
void half2_chain(Isa isa, const ScalarChainArgs& args);
/// StepRule::float_fma.
void float_chain(Isa isa, const ScalarChainArgs& args);
/// StepRule::int32.
void int32_chain(Isa isa, const ScalarChainArgs& args);

namespace avx512 {
void half2_chain(const ScalarChainArgs& args);
void float_chain(const ScalarChainArgs& args);
void int32_chain(const ScalarChainArgs& args);
}  // namespace avx512
namespace avx2 {
void half2_chain(const ScalarChainArgs& args);
void float_chain(const ScalarChainArgs& args);
void int32_chain(const ScalarChainArgs& args);
}  // namespace avx2

}  // namespace qf
