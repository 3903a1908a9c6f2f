#include "operators/attention_flash.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "operators/flash_rows.h"
#include "operators/vector_ops.h"

namespace qf {
namespace {

/// Rows worked on together: a divisor of every tile, small enough for scores and probabilities to stay in the cache.
constexpr int64_t kRows = 32;

struct Item {
  int64_t sequence, kv_head, first_row;
};

/// weights[part] = share of each part, from the parts' logarithms.
void weigh(const FlashPlan& plan, const SfuView& sfu, int64_t head_size, const float* log_sums, float* weights) {
  float largest = -std::numeric_limits<float>::infinity();
  for (int64_t part = 0; part < plan.parts; ++part) largest = std::fmax(largest, log_sums[part]);
  for (int64_t part = 0; part < plan.parts; ++part) weights[part] = flash_exp(sfu, log_sums[part] - largest);
  const float sum = butterfly_sum(weights, plan.parts, flash_merge_lanes(head_size));
  const float normaliser = flash_normaliser(plan.merge, sfu, largest, sum);
  for (int64_t part = 0; part < plan.parts; ++part) {
    weights[part] = flash_share(plan.merge, sfu, log_sums[part], weights[part], normaliser);
  }
}

/// Merges the parts of one row: out = sum of weight * part, ascending; parts of weight zero are passed over.
void combine_row(const FlashPlan& plan, const SfuView& sfu, int64_t head_size, const std::vector<FlashRows>& parts,
                 int64_t row, float* out) {
  float log_sums[128], weights[128];
  for (int64_t part = 0; part < plan.parts; ++part) log_sums[part] = parts[static_cast<size_t>(part)].log_sum(row);
  weigh(plan, sfu, head_size, log_sums, weights);
  std::fill_n(out, head_size, 0.0f);
  for (int64_t part = 0; part < plan.parts; ++part) {
    if (!(weights[part] > 0.0f)) continue;
    const float* values = parts[static_cast<size_t>(part)].output(row);
    for (int64_t d = 0; d < head_size; ++d) {
      out[d] = flush_subnormal(std::fma(weights[part], flush_subnormal(values[d]), out[d]));
    }
  }
}

void run_item(const OperatorContext& context, const AttentionArgs& args, const FlashPlan& plan,
              const KeyValuePanels& panels, const Item& item) {
  const VectorOps& ops = vector_ops(context.isa);
  const AttentionSequence& sequence = args.sequences[item.sequence];
  const AttentionSizes sizes = attention_sizes(args, sequence);
  const int64_t count = std::min(kRows, sizes.queries * sizes.group - item.first_row);
  const FlashQueries queries = load_queries(context, args, item.sequence, item.kv_head, item.first_row, count);
  std::vector<FlashRows> parts;
  parts.reserve(static_cast<size_t>(plan.parts));
  for (int64_t part = 0; part < plan.parts; ++part) {
    const BlockRange blocks = plan.range(sizes, plan.tile, item.first_row / plan.tile.rows, part, plan.parts);
    parts.emplace_back(context, args, sizes, panels, queries);
    parts.back().walk(blocks, plan.tile.keys);
    parts.back().normalise(plan.parts > 1 ? &plan.merge : nullptr);
  }
  std::vector<float> merged(static_cast<size_t>(args.head_size));
  for (int64_t row = 0; row < count; ++row) {
    const float* values = parts[0].output(row);
    if (plan.parts > 1) {
      combine_row(plan, *context.sfu, args.head_size, parts, row, merged.data());
      values = merged.data();
    }
    const int64_t packed = item.first_row + row;
    const int64_t head = item.kv_head * sizes.group + packed % sizes.group;
    ops.narrow(args.dtype, values, args.head_size,
               static_cast<uint16_t*>(sequence.out) + packed / sizes.group * args.out_stride + head * args.head_size);
  }
}

}  // namespace

AttentionSizes attention_sizes(const AttentionArgs& args, const AttentionSequence& sequence) {
  return {sequence.queries, sequence.keys, args.heads / args.kv_heads, args.kv_heads, args.head_size, args.sm_count};
}

AttentionSizes largest_sizes(const AttentionArgs& args) {
  AttentionSizes sizes{0, 0, args.heads / args.kv_heads, args.kv_heads, args.head_size, args.sm_count};
  for (int64_t i = 0; i < args.sequence_count; ++i) {
    sizes.queries = std::max(sizes.queries, args.sequences[i].queries);
    sizes.keys = std::max(sizes.keys, args.sequences[i].keys);
  }
  return sizes;
}

bool has_later_chunk(const AttentionArgs& args) {
  return std::any_of(args.sequences, args.sequences + args.sequence_count,
                     [](const AttentionSequence& s) { return s.queries > 1 && s.keys > s.queries; });
}

void check_flash(const AttentionArgs& args, const std::vector<FlashPlan>& plans, bool lg2) {
  check_attention(args);
  require(args.dtype != DType::fp32, "flash attention runs in fp16 or bf16");
  for (int64_t i = 0; i < args.sequence_count; ++i) {
    require(plans[static_cast<size_t>(i)].parts == 1 || lg2, "sequence ", i, ": its ", args.sequences[i].keys,
            " keys are split, which needs the special-function unit's lg2 tables");
  }
}

void attention_flash(const OperatorContext& context, const AttentionArgs& args, const std::vector<FlashPlan>& plans) {
  check_flash(args, plans, context.sfu->has_lg2());
  std::vector<std::unique_ptr<KeyValuePanels>> own;
  std::vector<const KeyValuePanels*> panels;
  std::vector<Item> items;
  for (int64_t i = 0; i < args.sequence_count; ++i) {
    const AttentionSequence& sequence = args.sequences[i];
    KeyValuePanels* prepared = sequence.panels;
    if (prepared == nullptr) {
      own.push_back(std::make_unique<KeyValuePanels>(args.kv_heads, args.head_size));
      prepared = own.back().get();
    }
    require(prepared->kv_heads() == args.kv_heads && prepared->head_size() == args.head_size, "sequence ", i,
            ": panels of ", prepared->kv_heads(), " heads of ", prepared->head_size(), " for ", args.kv_heads,
            " heads of ", args.head_size);
    require(std::find(panels.begin(), panels.end(), prepared) == panels.end(), "sequence ", i,
            ": its panels are another sequence's too");
    prepared->extend(context, {args.dtype, sequence.k, sequence.v, args.k_stride, args.v_stride, sequence.keys});
    require(prepared->keys() == sequence.keys, "sequence ", i, ": ", sequence.keys, " keys, but its panels hold ",
            prepared->keys());
    panels.push_back(prepared);
    const int64_t rows = sequence.queries * (args.heads / args.kv_heads);
    for (int64_t first = (rows - 1) / kRows * kRows; first >= 0; first -= kRows) {  // the longest first
      for (int64_t kv_head = 0; kv_head < args.kv_heads; ++kv_head) items.push_back({i, kv_head, first});
    }
  }
  context.pool->run(static_cast<int64_t>(items.size()), [&](int64_t index) {
    const Item& item = items[static_cast<size_t>(index)];
    const size_t sequence = static_cast<size_t>(item.sequence);
    run_item(context, args, plans[sequence], *panels[sequence], item);
  });
}

}  // namespace qf
