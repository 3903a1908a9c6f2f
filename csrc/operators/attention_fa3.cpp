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
  if (args.dtype != DType::fp16) notes.push_back("attention fa3: bf16 (source only)");
  if (args.head_size != 64)
    notes.push_back("attention fa3: head size " + std::to_string(args.head_size) + " (tiles from source; 64 recorded)");
  const AttentionSizes largest = largest_sizes(args);
  if (largest.group != 3)
    notes.push_back("attention fa3: " + std::to_string(largest.group) + " heads per key-value head (3 recorded)");
  if (largest.keys > 1316) notes.push_back("attention fa3: more than 1,316 keys");
  for (int64_t i = 0; i < args.sequence_count; ++i) {
    const AttentionSequence& sequence = args.sequences[i];
    if (sequence.queries == 1 || sequence.queries == sequence.keys) continue;
    notes.push_back("attention fa3: a chunk of queries behind earlier keys (chunked prefill)");
    break;
  }
}

}  // namespace qf
