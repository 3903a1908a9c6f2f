// vLLM's Machete (Hopper only): CUTLASS stream-K over a heuristic tile, wgmma with the weights as left operand. Each
// tile's pieces of K are added in ascending order in fp32. The schedule is machete_schedule.cpp.
#include <algorithm>

#include "base/error.h"
#include "kernels/machete_schedule.h"
#include "kernels/parts.h"
#include "kernels/table.h"

namespace qf {
namespace {

/// The first line that fits; 4069 is what the source says and what runs.
MacheteTile choose_tile(int64_t m, int64_t n, int64_t k) {
  if (m > 256) return k <= 16384 && n <= 4096 ? MacheteTile{128, 128, 2} : MacheteTile{128, 256, 2};
  if (m > 128) {
    if (k <= 4096 && n <= 4096) return {128, 64, 2};
    return k <= 8192 && n <= 8192 ? MacheteTile{128, 128, 2} : MacheteTile{128, 256, 2};
  }
  if (m > 64) {
    if (k <= 4069 && n <= 4069) return {128, 32, 2};
    if (k <= 4069 && n <= 8192) return {128, 64, 2};
    return k >= 8192 && n >= 12288 ? MacheteTile{256, 128, 2} : MacheteTile{128, 128, 2};
  }
  if (m > 32) {
    if (k <= 6144 && n <= 6144) return {128, 16, 1};
    return k >= 16384 && n >= 12288 ? MacheteTile{256, 64, 2} : MacheteTile{128, 64, 2};
  }
  if (m > 16) return k <= 12288 && n <= 8192 ? MacheteTile{128, 32, 2} : MacheteTile{256, 32, 2};
  return n >= 26624 ? MacheteTile{256, 16, 1} : MacheteTile{128, 16, 1};
}

Tree pieces_tree(const std::vector<int64_t>& cuts) {
  Tree tree;
  std::vector<int32_t> nodes;
  for (size_t i = 0; i + 1 < cuts.size(); ++i) {
    tree.leaves.push_back(straight_leaf(cuts[i] * kMacheteTileK, cuts[i + 1] * kMacheteTileK));
    nodes.push_back(static_cast<int32_t>(i));
  }
  add_serially(tree, nodes, Narrow::none);
  return tree;
}

}  // namespace

Plan plan_machete(const Problem& problem, const DeviceNumbers& device, const KernelOptions& options) {
  require_format("machete", problem.format, {Format::fp16, Format::bf16});
  require(problem.k % kMacheteTileK == 0, "machete: K = ", problem.k, " is no multiple of 64");
  require(problem.n % 128 == 0, "machete: N = ", problem.n, " is no multiple of 128");
  require(problem.group == problem.k || problem.group % kMacheteTileK == 0, "machete: group size ", problem.group,
          " is neither -1 nor a multiple of 64");
  Plan plan = begin_plan("machete", problem, device, options);
  if (!options.symmetric) {
    plan.weight = problem.format == Format::bf16 ? WeightRule::bf16_fma : WeightRule::fp16_fma;
  }
  const MacheteTile tile = choose_tile(problem.m, problem.n, problem.k);
  const MacheteSchedule schedule = machete_schedule(problem, tile, device.sm_count);
  plan.sentence = "K in " + schedule.kind + "; pieces added in fp32 by ascending k";
  for (int64_t row = 0; row < schedule.row_tiles; ++row) {
    for (int64_t column = 0; column < schedule.column_tiles; ++column) {
      const auto& cuts = schedule.cuts[static_cast<size_t>(row * schedule.column_tiles + column)];
      if (column * tile.n >= problem.n) continue;  // rounded up to whole clusters
      add_region(plan, {row * tile.m, std::min(problem.m, (row + 1) * tile.m), column * tile.n,
                        std::min(problem.n, (column + 1) * tile.n), intern_tree(plan, pieces_tree(cuts))});
    }
  }
  plan.facts.push_back("tile n" + std::to_string(tile.n) + " m" + std::to_string(tile.m) + ", cluster " +
                       std::to_string(tile.cluster) + ", " + schedule.kind);
  note_device(plan, device);
  return plan;
}

}  // namespace qf
