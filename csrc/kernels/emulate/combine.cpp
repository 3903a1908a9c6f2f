#include "kernels/emulate/combine.h"

#include <numeric>
#include <vector>

#include "kernels/emulate/convert.h"
#include "kernels/emulate/race_order.h"
#include "kernels/emulate/round_to_odd.h"
#include "kernels/parts.h"

namespace qf {

const float* combine_row(Isa isa, const Tree& tree, const LeafRow& leaves, float* scratch) {
  const int64_t leaf_count = static_cast<int64_t>(tree.leaves.size());
  const auto node = [&](int64_t id) {
    return id < leaf_count ? leaves.base + id * leaves.stride : scratch + (id - leaf_count) * leaves.columns;
  };
  for (size_t i = 0; i < tree.adds.size(); ++i) {
    const float *left = node(tree.adds[i].left), *right = node(tree.adds[i].right);
    float* sum = scratch + static_cast<int64_t>(i) * leaves.columns;
    for (int64_t c = 0; c < leaves.columns; ++c) sum[c] = left[c] + right[c];
    narrow_span(isa, tree.adds[i].narrow, sum, leaves.columns);
  }
  return node(tree.root());
}

const float* race_row(Isa isa, const Tree& tree, const LeafRow& leaves, const ExecutorContext& context, int64_t row,
                      int64_t column, float* scratch) {
  std::vector<int32_t> order(tree.leaves.size());
  for (int parity = 0; parity < 2; ++parity) {
    std::iota(order.begin(), order.end(), 0);
    if (!context.deterministic) {
      race_order(context.seed, row, column / 64, parity, order.data(), static_cast<int>(order.size()));
    }
    float* sum = scratch + parity * leaves.columns;
    for (int64_t c = 0; c < leaves.columns; ++c) sum[c] = 0.0f;
    for (const int32_t leaf : order) {
      const float* addend = leaves.base + leaf * leaves.stride;
      for (int64_t c = 0; c < leaves.columns; ++c) sum[c] += addend[c];
      narrow_span(isa, tree.race_narrow, sum, leaves.columns);
    }
  }
  for (int64_t c = 0; c < leaves.columns; ++c) {
    if ((c >> 1) & 1) scratch[c] = scratch[leaves.columns + c];
  }
  return scratch;
}

void finish_row(Isa isa, const EpilogueArgs& args, const float* root, int64_t columns, void* out, float* scratch) {
  const Narrow narrow = narrow_of(args.rule->output);
  for (int64_t c = 0; c < columns; ++c) scratch[c] = root[c];
  if (args.rule->bias == BiasRule::before_rounding) {
    for (int64_t c = 0; c < columns; ++c) scratch[c] += args.bias[c];
  }
  if (args.rule->channel_scale) {
    narrow_span(isa, narrow, scratch, columns);
    for (int64_t c = 0; c < columns; ++c) scratch[c] *= args.channel_scale[c];  // exact: 16-bit factors
  }
  if (args.rule->bias == BiasRule::fused_scale) {
    for (int64_t c = 0; c < columns; ++c) scratch[c] = add_to_odd(scratch[c], args.bias[c]);
  }
  if (args.rule->bias == BiasRule::after_rounding) {
    narrow_span(isa, narrow, scratch, columns);
    for (int64_t c = 0; c < columns; ++c) scratch[c] += args.bias[c];
  }
  store_span(isa, args.rule->output, scratch, out, columns);
}

}  // namespace qf
