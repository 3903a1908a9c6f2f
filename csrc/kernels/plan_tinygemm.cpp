// PyTorch's _weight_int4pack_mm (tinygemm, bf16): eight warps split K by 128, round robin; every k16 tile is one step
// from +0 joined by an ordinary fp32 add; the warps' sums are added serially. What K leaves over after whole chunks of
// 128 goes to the warps in pieces of inner_k_tiles tiles. No SM count decides anything.
#include <algorithm>

#include "base/error.h"
#include "kernels/parts.h"
#include "kernels/table.h"

namespace qf {

Plan plan_tinygemm(const Problem& problem, const DeviceNumbers& device, const KernelOptions& options) {
  require_format("tinygemm", problem.format, {Format::bf16});
  require(problem.k % 16 == 0, "tinygemm: K = ", problem.k, " is no multiple of 16");
  require(problem.n % 8 == 0, "tinygemm: N = ", problem.n, " is no multiple of 8");
  require(options.inner_k_tiles == 2 || options.inner_k_tiles == 4 || options.inner_k_tiles == 8,
          "tinygemm: inner_k_tiles must be 2, 4 or 8, got ", options.inner_k_tiles);
  constexpr int64_t kWarps = 8, kChunk = 128;
  Plan plan = begin_plan("tinygemm", problem, device, options);
  plan.sentence = "8 warps take chunks of 128 k round robin, a fresh step per 16 k added in fp32; warps added serially";
  plan.weight = WeightRule::bf16_offset;
  plan.step = StepRule::matrix_unit_fresh;
  Tree tree;
  std::vector<int32_t> warps;
  const int64_t chunks = problem.k / kChunk, piece = 16 * int64_t{options.inner_k_tiles};
  for (int64_t warp = 0; warp < kWarps; ++warp) {
    Leaf leaf;
    if (warp < chunks) {
      leaf.walks.push_back({warp * kChunk, kChunk, kWarps * kChunk, ceil_div(chunks - warp, kWarps)});
    }
    const int64_t begin = chunks * kChunk + warp * piece, end = std::min(problem.k, begin + piece);
    if (begin < end) leaf.walks.push_back({begin, end - begin, end - begin, 1});
    tree.leaves.push_back(leaf);
    warps.push_back(static_cast<int32_t>(warp));
  }
  add_serially(tree, warps, Narrow::none);
  whole_output(plan, tree);
  if (problem.k % piece != 0)
    plan.unconfirmed.push_back("K is no multiple of inner_k_tiles * 16: PyTorch refuses to pack such weights");
  note_device(plan, device);
  return plan;
}

}  // namespace qf
