// cuBLAS with fp32 accumulation (nvjet kernels on Hopper): a closed library whose order was found from its outputs. No
// "splitK" in the kernel's name: one walk over K. "splitK": s contiguous parts of whole 64-k tiles, partials in fp32.
// When cuBLAS splits is its heuristic, so s is given by the caller; 0 asks for what the recordings show.
#include <algorithm>

#include "base/error.h"
#include "kernels/parts.h"
#include "kernels/table.h"

namespace qf {
namespace {

/// Parts seen on an H200 (cuBLAS 13); 1 everywhere else. All fit floor(wave / tiles) of the kernel's tile, but
/// which tile cuBLAS takes is not known.
int64_t recorded_split(const Problem& p, const DeviceNumbers& device, bool transposed) {
  if (!recorded_device(device) || p.n != 4096) return 1;
  if (transposed && p.m == 16 && p.k == 4096) return 2;
  if (p.m <= 16 && (p.k == 4096 || p.k == 12288)) return 3;
  if (p.k != 12288) return 1;
  if (p.m == 64) return 3;
  return p.m == 128 || p.m == 256 ? 2 : 1;
}

/// Whether a sweep of shapes saw how many parts ran: up to K = 2,048 never more than one (fp16 and bf16, both layouts,
/// N from 128 to 24,576, M to 512; the demo model's K to M = 1,400 and in a batch of 2,190 rows).
bool never_split(const Problem& p) {
  return p.k <= 2048 && (p.m <= 512 || ((p.m <= 1400 || p.m == 2190) && (p.k == 768 || p.k == 1536)));
}

/// The padded SmolLM2's linears in recorded runs of vLLM, one walk each: the lm_head, fp16's layers ([N, K]), and awq's
/// from 256 rows.
bool replayed_shape(const Problem& p, bool transposed) {
  if (p.n == 49152 && p.k == 768) return p.m < 1300;
  const bool layer = (p.k == 768 && (p.n == 768 || p.n == 1280 || p.n == 3072)) || (p.k == 1536 && p.n == 768);
  return layer && (transposed ? p.m <= 72 : p.m <= 2190);
}

bool recorded_shape(const Problem& p, bool transposed) {
  if (p.format == Format::fp16 && replayed_shape(p, transposed)) return true;
  if (never_split(p)) return true;
  const bool rows = p.m == 1 || p.m == 8 || p.m == 16 || p.m == 64 || p.m == 128 || p.m == 256;
  return rows && ((p.n == 512 && p.k == 1024) || (p.n == 4096 && (p.k == 4096 || p.k == 12288)));
}

}  // namespace

Plan plan_cublas(const Problem& problem, const DeviceNumbers& device, const KernelOptions& options) {
  require_format("cublas", problem.format, {Format::fp16, Format::bf16});
  Plan plan = begin_plan("cublas", problem, device, options);
  plan.file_order = true;
  if (options.bias) {
    plan.epilogue.bias = BiasRule::before_rounding;
    plan.unconfirmed.back() = "bias: joins the fp32 accumulator before the rounding (documentation only)";
  }
  require(options.split >= 0, "cublas: split must be 0 (recorded) or at least 1, got ", options.split);
  const int64_t split = options.split ? options.split : recorded_split(problem, device, options.transposed);
  const Tree tree = contiguous_parts(problem.k, split, Narrow::none);
  whole_output(plan, tree);
  plan.sentence = split == 1
                      ? "one walk over K, rounded once"
                      : std::to_string(tree.leaves.size()) + " contiguous parts of K, partials fp32, added ascending";
  plan.facts.push_back("split = " + std::to_string(split) + (options.split ? "" : " (recorded table)"));
  note_device(plan, device);
  if (!recorded_device(device)) plan.unconfirmed.push_back("cuBLAS order: named default, none recorded on this device");
  if (options.split == 0 && !recorded_shape(problem, options.transposed))
    plan.unconfirmed.push_back("split: this shape was not recorded");
  return plan;
}

}  // namespace qf
