// PyTorch's _weight_int4pack_mm (tinygemm, bf16): eight warps split K by 128, round robin; every k16 tile is one step
// from +0 joined by an ordinary fp32 add; the warps' sums are added serially. No shape or SM count decides anything.
#include "base/error.h"
#include "kernels/parts.h"
#include "kernels/table.h"

namespace qf {

Plan plan_tinygemm(const Problem& problem, const DeviceNumbers& device, const KernelOptions& options) {
  require_format("tinygemm", problem.format, {Format::bf16});
  require(problem.k % 16 == 0, "tinygemm: K = ", problem.k, " is no multiple of 16");
  require(problem.n % 8 == 0, "tinygemm: N = ", problem.n, " is no multiple of 8");
  constexpr int64_t kWarps = 8, kChunk = 128;
  Plan plan = begin_plan("tinygemm", problem, device, options);
  plan.sentence = "8 warps take chunks of 128 k round robin, a fresh step per 16 k added in fp32; warps added serially";
  plan.weight = WeightRule::bf16_offset;
  plan.step = StepRule::matrix_unit_fresh;
  Tree tree;
  std::vector<int32_t> warps;
  for (int64_t warp = 0; warp < kWarps; ++warp) {
    Leaf leaf;
    const int64_t start = warp * kChunk, stride = kWarps * kChunk;
    const int64_t whole = problem.k >= start + kChunk ? (problem.k - start - kChunk) / stride + 1 : 0;
    if (whole > 0) leaf.walks.push_back({start, kChunk, stride, whole});
    const int64_t tail = start + whole * stride;  // a chunk that K cuts short
    if (tail < problem.k) leaf.walks.push_back({tail, problem.k - tail, problem.k - tail, 1});
    tree.leaves.push_back(leaf);
    warps.push_back(static_cast<int32_t>(warp));
  }
  add_serially(tree, warps, Narrow::none);
  whole_output(plan, tree);
  if (problem.k % (kWarps * kChunk) != 0) plan.unconfirmed.push_back("K tail: source only (K is no multiple of 1024)");
  note_device(plan, device);
  return plan;
}

}  // namespace qf
