#include "operators/flash_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "operators/attention_flash.h"
#include "operators/vector_ops.h"

namespace qf {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

int lowest_exponent(DType dtype) { return dtype == DType::fp16 ? -14 : -126; }

}  // namespace

FlashQueries load_queries(const OperatorContext& context, const AttentionArgs& args, int64_t sequence, int64_t kv_head,
                          int64_t first_row, int64_t count) {
  const VectorOps& ops = vector_ops(context.isa);
  const int64_t group = args.heads / args.kv_heads;
  FlashQueries queries{kv_head, first_row, count, {}, {}};
  queries.value.resize(static_cast<size_t>(count * args.head_size));
  queries.cell.resize(queries.value.size());
  for (int64_t row = 0; row < count; ++row) {
    const int64_t packed = first_row + row;
    const int64_t head = kv_head * group + packed % group;
    const uint16_t* q = static_cast<const uint16_t*>(args.sequences[sequence].q) + packed / group * args.q_stride;
    ops.widen(args.dtype, q + head * args.head_size, args.head_size, queries.value.data() + row * args.head_size);
  }
  ops.row_cells(queries.value.data(), count * args.head_size, lowest_exponent(args.dtype), queries.cell.data());
  return queries;
}

FlashRows::FlashRows(const OperatorContext& context, const AttentionArgs& args, const AttentionSizes& sizes,
                     const KeyValuePanels& panels, const FlashQueries& queries)
    : context_(context), args_(args), sizes_(sizes), panels_(panels), queries_(queries) {
  log2_scale_ = flash_log2_scale(args.scale);
  const size_t count = static_cast<size_t>(queries.count);
  largest_.assign(count, kMinusInfinity);
  sums_.assign(count * 4, 0.0f);
  output_.assign(count * static_cast<size_t>(sizes.head_size), 0.0f);
  log_sums_.assign(count, kMinusInfinity);
}

int64_t FlashRows::visible_keys(int64_t row) const {
  return sizes_.keys - sizes_.queries + (queries_.first_row + row) / sizes_.group + 1;
}

void FlashRows::scores(int64_t first_key, int64_t panel_count) {
  std::vector<ChainPanel> panels(static_cast<size_t>(panel_count));
  for (int64_t p = 0; p < panel_count; ++p) {
    panels[static_cast<size_t>(p)] = panels_.keys_panel(queries_.kv_head, first_key / kPanelWidth + p);
  }
  const int64_t padded = panel_count * kPanelWidth;
  scores_.assign(static_cast<size_t>(queries_.count * padded), 0.0f);
  dot_chain(context_.isa, {args_.unit,
                           Accumulate::carried,
                           {0, sizes_.head_size, 0, 1},
                           {queries_.value.data(), queries_.cell.data(), sizes_.head_size},
                           static_cast<int>(queries_.count),
                           panels.data(),
                           static_cast<int>(panel_count),
                           scores_.data(),
                           padded});
}

void FlashRows::values(int64_t first_key, int64_t panel_count) {
  const int64_t padded = panel_count * kPanelWidth;
  std::vector<ChainPanel> panels(static_cast<size_t>(sizes_.head_size / kPanelWidth));
  for (size_t p = 0; p < panels.size(); ++p) {
    panels[p] = panels_.values_panel(queries_.kv_head, static_cast<int64_t>(p), first_key);
  }
  dot_chain(context_.isa, {args_.unit,
                           Accumulate::carried,
                           {0, padded, 0, 1},
                           {probabilities_.data(), probability_cells_.data(), padded},
                           static_cast<int>(queries_.count),
                           panels.data(),
                           static_cast<int>(panels.size()),
                           output_.data(),
                           sizes_.head_size});
}

void FlashRows::softmax_row(int64_t row, int64_t visible, int64_t padded) {
  const VectorOps& ops = vector_ops(context_.isa);
  float* p = probabilities_.data() + row * padded;
  if (visible <= 0) {  // a block that the row does not see changes nothing
    std::fill_n(p, padded, 0.0f);
    return;
  }
  const float* s = scores_.data() + row * padded;
  float& largest = largest_[static_cast<size_t>(row)];
  const float before = largest;
  largest = std::max(before, ops.max(s, visible));
  const bool first_block = before == kMinusInfinity;
  float rescale = 0.0f;
  if (!first_block) {
    rescale = context_.sfu->ex2(flush_subnormal(flush_subnormal(before - largest) * log2_scale_));
    ops.scale_flushed(output_.data() + row * sizes_.head_size, sizes_.head_size, rescale);
  }
  const float offset = largest == kMinusInfinity ? 0.0f : flush_subnormal(flush_subnormal(largest) * log2_scale_);
  ops.exp2_scaled(*context_.sfu, s, log2_scale_, offset, visible, p);
  std::fill(p + visible, p + padded, 0.0f);
  ops.quad_sums(p, padded, first_block, rescale, sums_.data() + row * 4);
  ops.round(args_.dtype, p, visible);  // the sum above is of the unrounded numbers
}

void FlashRows::walk(const BlockRange& blocks, int64_t block_keys) {
  const VectorOps& ops = vector_ops(context_.isa);
  const int64_t most = visible_keys(queries_.count - 1);
  for (int64_t block = blocks.last - 1; block >= blocks.first; --block) {
    const int64_t first_key = block * block_keys;
    if (first_key >= most) continue;
    const int64_t panel_count = ceil_div(std::min(block_keys, most - first_key), kPanelWidth);
    const int64_t padded = panel_count * kPanelWidth;
    scores(first_key, panel_count);
    probabilities_.resize(static_cast<size_t>(queries_.count * padded));
    probability_cells_.resize(probabilities_.size());
    for (int64_t row = 0; row < queries_.count; ++row) {
      softmax_row(row, std::min(visible_keys(row) - first_key, padded), padded);
    }
    ops.row_cells(probabilities_.data(), queries_.count * padded, lowest_exponent(args_.dtype),
                  probability_cells_.data());
    values(first_key, panel_count);
  }
}

void FlashRows::normalise(const FlashMerge* merge) {
  for (int64_t row = 0; row < queries_.count; ++row) {
    const float* quad = sums_.data() + row * 4;
    const float sum = quad_total(quad);
    if (sum == 0.0f) continue;  // a part without visible keys: its output stays 0, its logarithm -inf
    vector_ops(context_.isa)
        .scale_flushed(output_.data() + row * sizes_.head_size, sizes_.head_size, context_.sfu->rcp(sum));
    if (merge == nullptr) continue;
    log_sums_[static_cast<size_t>(row)] =
        flash_log_sum(*merge, *context_.sfu, args_.scale, largest_[static_cast<size_t>(row)], sum);
  }
}

}  // namespace qf
