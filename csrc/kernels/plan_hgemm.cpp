// cublasHgemm: fp16 accumulation. vLLM's gptq dequantizes and calls it above 50 rows. The accumulator is rounded to
// fp16 after every step; where K is split, the fp16 partials are added serially in fp16.
#include <algorithm>

#include "base/error.h"
#include "kernels/parts.h"
#include "kernels/table.h"

namespace qf {
namespace {

struct RecordedSplit {
  int64_t n, k, first_m, last_m, split;
};

constexpr RecordedSplit kRecorded[] = {
#define QF_HGEMM_SPLIT(n, k, first_m, last_m, split) {n, k, first_m, last_m, split},
#include "kernels/hgemm_splits.def"
#undef QF_HGEMM_SPLIT
};

/// Parts of K that were recorded for this shape, or 0.
int64_t recorded_split(const Problem& p, const DeviceNumbers& device) {
  if (!recorded_device(device)) return 0;
  for (const RecordedSplit& r : kRecorded) {
    if (r.n == p.n && r.k == p.k && r.first_m <= p.m && p.m <= r.last_m) return r.split;
  }
  return 0;
}

/// Where nothing was recorded: floor(SMs / number of 128 (N) x 64 (M) tiles), and no part below 256 k. On a device
/// without recordings: the named default, one walk.
int64_t rule_split(const Problem& p, const DeviceNumbers& device) {
  if (!recorded_device(device)) return 1;
  const int64_t tiles = ceil_div(p.n, 128) * ceil_div(p.m, 64);
  return std::max<int64_t>(1, std::min<int64_t>(device.sm_count / tiles, p.k / 256));
}

}  // namespace

Plan plan_hgemm(const Problem& problem, const DeviceNumbers& device, const KernelOptions& options) {
  require_format("hgemm", problem.format, {Format::fp16});
  require(options.split >= 0, "hgemm: split must be 0 (rule) or at least 1, got ", options.split);
  Plan plan = begin_plan("hgemm", problem, device, options);
  plan.unit = device.fp16_out;
  plan.file_order = true;  // vLLM's dequantization writes rows where they came from
  const int64_t recorded = recorded_split(problem, device);
  const int64_t split = options.split ? options.split : recorded ? recorded : rule_split(problem, device);
  const Tree tree = contiguous_parts(problem.k, split, Narrow::fp16);
  const size_t parts = tree.leaves.size();
  whole_output(plan, tree);
  plan.sentence = std::to_string(parts) + (parts == 1 ? " walk" : " contiguous parts") +
                  " of K in an fp16 accumulator, partials added in fp16 ascending";
  plan.facts.push_back("split = " + std::to_string(split) +
                       (options.split ? ""
                        : recorded    ? " (recorded)"
                                      : " (rule)"));
  note_device(plan, device);
  if (split != recorded) plan.unconfirmed.push_back("hgemm split: nobody recorded this shape with this split");
  return plan;
}

}  // namespace qf
