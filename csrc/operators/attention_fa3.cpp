// FlashAttention 3 as vLLM 0.21 runs it on Hopper (paged cache, packed groups).
#include <cmath>
#include <limits>

#include "operators/attention_flash.h"

namespace qf {
namespace {

constexpr uint32_t kLn2 = 0x3F317218u;
constexpr uint32_t kLog2e = 0x3FB8AA3Bu;

float log_sum_fa3(const SfuView& sfu, float scale, float largest, float sum) {
  const float log2_scale = static_cast<float>(static_cast<double>(scale) * 1.4426950408889634074);
  return std::fma(log2_scale * bits_float(kLn2), flush_subnormal(largest),
                  flush_subnormal(sfu.lg2(sum) * bits_float(kLn2)));
}

/// Shares w / W with one reciprocal of the sum W.
void weigh_fa3(const SfuView& sfu, int64_t head_size, const float* log_sums, int64_t parts, float* weights) {
  float largest = -std::numeric_limits<float>::infinity();
  for (int64_t part = 0; part < parts; ++part) largest = std::fmax(largest, log_sums[part]);
  for (int64_t part = 0; part < parts; ++part) {
    weights[part] = sfu.ex2(flush_subnormal(flush_subnormal(log_sums[part] - largest) * bits_float(kLog2e)));
  }
  const float inverse = sfu.rcp(butterfly_sum(weights, parts, head_size <= 64 ? 16 : 32));
  for (int64_t part = 0; part < parts; ++part) weights[part] = flush_subnormal(weights[part] * inverse);
}

std::vector<FlashPlan> plan_fa3(const AttentionArgs& args) {
  const AttentionSizes largest = largest_sizes(args);
  const AttentionTile tile = fa3_tile(largest.queries, largest.group, largest.head_size);
  const int64_t bound = fa3_split_bound(largest);
  int64_t blocks = 0;
  for (int64_t i = 0; i < args.sequence_count; ++i)
    blocks += fa3_blocks(attention_sizes(args, args.sequences[i]), tile);
  std::vector<FlashPlan> plans;
  for (int64_t i = 0; i < args.sequence_count; ++i) {
    const int64_t parts = fa3_splits(attention_sizes(args, args.sequences[i]), tile, bound, blocks);
    plans.push_back({tile, parts, fa3_part, log_sum_fa3, weigh_fa3});
  }
  return plans;
}

}  // namespace

void attention_fa3(const OperatorContext& context, const AttentionArgs& args) {
  attention_flash(context, args, plan_fa3(args));
}

void attention_fa3_notes(const AttentionArgs& args, Notes& notes) {
  constexpr int64_t kPrompt = 1356, kDecode = 4539;  // longest recordings, with several queries and with one
  const AttentionSizes largest = largest_sizes(args);
  if (largest.keys > (largest.queries > 1 ? kPrompt : kDecode))
    notes.push_back("attention fa3: " + std::to_string(largest.keys) + " keys (recorded: " + std::to_string(kPrompt) +
                    ", with one query " + std::to_string(kDecode) + ")");
}

}  // namespace qf
