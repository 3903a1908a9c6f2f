// vLLM's awq_gemm (llm-awq's m16nXk32): eight slices of K, interleaved by chunks of 32, each rounded to fp16; then
// torch's sum of eight fp16 numbers in fp32. From 256 rows on vLLM dequantizes and calls cuBLAS.
#include "base/error.h"
#include "kernels/parts.h"
#include "kernels/table.h"

namespace qf {
namespace {

constexpr int64_t kSlices = 8, kChunk = 32, kLargeRows = 256;

}  // namespace

Plan plan_awq(const Problem& problem, const DeviceNumbers& device, const KernelOptions& options) {
  require_format("awq", problem.format, {Format::fp16});
  if (problem.m >= kLargeRows) {
    KernelOptions without_bias = options;  // the bias is an addition of its own
    without_bias.bias = false;
    if (options.split == 1) without_bias.split = 0;  // inside vLLM nobody chooses it
    Plan plan = plan_cublas(problem, device, without_bias);
    add_bias_after(plan, options);
    plan.sentence = "awq from 256 rows: dequantized to fp16, then " + plan.sentence;
    return plan;
  }
  require(problem.k % kChunk == 0, "awq: K = ", problem.k, " is no multiple of 32");
  require(problem.n % 64 == 0, "awq: N = ", problem.n, " is no multiple of 64");
  require(problem.group % kChunk == 0, "awq: group size ", problem.group, " is no multiple of 32");
  require(!options.dense, "awq: below 256 rows the weights are codes, not numbers");
  Plan plan = begin_plan("awq", problem, device, options);
  plan.sentence = "8 slices of K by chunks of 32 (i, i + 8, ...), each rounded to fp16; their fp32 sum rounded to fp16";
  Tree tree;
  tree.leaf_narrow = Narrow::fp16;
  const int64_t chunks = problem.k / kChunk;
  for (int64_t slice = 0; slice < kSlices; ++slice) {
    Leaf leaf;
    const int64_t count = slice < chunks ? ceil_div(chunks - slice, kSlices) : 0;
    if (count > 0) leaf.walks.push_back({slice * kChunk, kChunk, kSlices * kChunk, count});
    tree.leaves.push_back(leaf);  // a slice without chunks writes zeros
  }
  // torch's reduction keeps four accumulators: a_i = x_i + x_(i + 4), then ((a0 + a1) + a2) + a3.
  for (int32_t i = 0; i < 4; ++i) tree.adds.push_back({i, i + 4, Narrow::none});
  add_serially(tree, {8, 9, 10, 11}, Narrow::none);
  whole_output(plan, tree);
  note_device(plan, device);
  return plan;
}

}  // namespace qf
