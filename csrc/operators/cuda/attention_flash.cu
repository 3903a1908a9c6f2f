// Flash attention's host side: plans become items of work, in batches of sequences whose parts fit the workspace.
#include "operators/attention_flash.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "operators/cuda/attention_scheme.h"
#include "operators/cuda/attention_steps.h"
#include "operators/cuda/device_operators.h"
#include "operators/cuda/flash_kernels.h"

namespace qf::cuda {
namespace {

/// Sequences of one batch, and the items of those with few and with many rows.
struct Batch {
  std::vector<FlashSequence> sequences;
  std::vector<FlashItem> few, many;
  int64_t partial_rows = 0;

  bool empty() const { return sequences.empty(); }
};

int64_t packed_rows(const AttentionArgs& args, const AttentionSequence& sequence) {
  return sequence.queries * (args.heads / args.kv_heads);
}

int64_t partial_rows(const AttentionArgs& args, int64_t index, const FlashPlan& plan) {
  return plan.parts == 1 ? 0 : packed_rows(args, args.sequences[index]) * args.kv_heads * plan.parts;
}

void append(const AttentionArgs& args, int64_t index, const FlashPlan& plan, Batch& batch) {
  const AttentionSequence& s = args.sequences[index];
  const AttentionSizes sizes = attention_sizes(args, s);
  const auto slot = static_cast<int32_t>(batch.sequences.size());
  batch.sequences.push_back({static_cast<const uint16_t*>(s.q), static_cast<const uint16_t*>(s.k),
                             static_cast<const uint16_t*>(s.v), static_cast<uint16_t*>(s.out),
                             static_cast<int32_t>(s.queries), static_cast<int32_t>(plan.parts), batch.partial_rows});
  batch.partial_rows += partial_rows(args, index, plan);
  const int64_t rows = packed_rows(args, s);
  const bool few = rows <= kFewRows;
  const int64_t step = few ? kFewRows : kManyRows;
  for (int64_t first = 0; first < rows; first += step) {
    for (int64_t part = 0; part < plan.parts; ++part) {
      const BlockRange range = plan.range(sizes, plan.tile, first / plan.tile.rows, part, plan.parts);
      (few ? batch.few : batch.many)
          .push_back({slot, static_cast<int32_t>(first), static_cast<int32_t>(part), static_cast<int32_t>(range.first),
                      static_cast<int32_t>(range.last), static_cast<int32_t>(s.keys)});
    }
  }
}

/// The longest first, so that the last thread blocks to start are short.
void sort_by_length(std::vector<FlashItem>& items) {
  std::stable_sort(items.begin(), items.end(), [](const FlashItem& a, const FlashItem& b) {
    return a.block_end - a.block_begin > b.block_end - b.block_begin;
  });
}

void run_items(const DeviceOperatorContext& context, const AttentionArgs& args, Scheme scheme, FlashJob job,
               const std::vector<FlashItem>& items, FlashItems& device, bool few) {
  if (items.empty()) return;
  job.items = device.place(items, *context.allocator, context.stream);
  const auto run = args.dtype == DType::bf16 ? run_flash_bf16 : run_flash_fp16;
  run(job, scheme, static_cast<int>(args.head_size), few, static_cast<int64_t>(items.size()), context.stream);
}

void run_batch(const DeviceOperatorContext& context, const AttentionArgs& args, const FlashPlan& plan,
               const Batch& batch) {
  const Allocator& allocator = *context.allocator;
  const auto rows = static_cast<size_t>(batch.partial_rows);
  const bool in_line = batch.sequences.size() <= kInlineSequences;
  const auto sequences =
      upload(allocator, batch.sequences.data(), in_line ? 0 : batch.sequences.size(), context.stream);
  const Buffer<float> partials(allocator, rows * static_cast<size_t>(args.head_size), context.stream);
  const Buffer<float> log_sums(allocator, rows, context.stream);
  FlashJob job{.sequences = sequences.data(),
               .few_sequences = {},
               .items = nullptr,
               .partials = partials.data(),
               .log_sums = log_sums.data(),
               .unit = args.unit,
               .sfu = context.sfu->tables(),
               .own_unit = context.sfu->own_is_equal(),
               .merge = plan.merge,
               .group = static_cast<int32_t>(args.heads / args.kv_heads),
               .kv_heads = static_cast<int32_t>(args.kv_heads),
               .block_keys = static_cast<int32_t>(plan.tile.keys),
               .q_stride = args.q_stride,
               .k_stride = args.k_stride,
               .v_stride = args.v_stride,
               .out_stride = args.out_stride,
               .scale = args.scale,
               .log2_scale = flash_log2_scale(args.scale),
               .overlapped = context.overlapped};
  const Scheme scheme = context.scheme.value_or(attention_scheme(args.unit, context.own));
  if (in_line) std::copy(batch.sequences.begin(), batch.sequences.end(), job.few_sequences);
  FlashTables own;
  FlashTables& tables = context.tables != nullptr ? *context.tables : own;
  run_items(context, args, scheme, job, batch.few, tables.few, true);
  run_items(context, args, scheme, job, batch.many, tables.many, false);
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const FlashSequence& s = batch.sequences[i];
    if (s.parts == 1) continue;
    run_flash_combine(job, args.dtype == DType::bf16, static_cast<int>(args.head_size), static_cast<int>(i),
                      int64_t{s.queries} * job.group, context.stream);
  }
}

std::vector<Batch> make_batches(const DeviceOperatorContext& context, const AttentionArgs& args,
                                const std::vector<FlashPlan>& plans) {
  const int64_t row_bytes = (args.head_size + 1) * static_cast<int64_t>(sizeof(float));
  const int64_t most = static_cast<int64_t>(context.workspace) / row_bytes;
  std::vector<Batch> batches(1);
  for (int64_t i = 0; i < args.sequence_count; ++i) {
    const FlashPlan& plan = plans[static_cast<size_t>(i)];
    if (!batches.back().empty() && batches.back().partial_rows + partial_rows(args, i, plan) > most) {
      batches.emplace_back();
    }
    append(args, i, plan, batches.back());
  }
  for (Batch& batch : batches) {
    sort_by_length(batch.few);
    sort_by_length(batch.many);
  }
  return batches;
}

void check_arguments(const AttentionArgs& args, const std::vector<FlashPlan>& plans,
                     const DeviceOperatorContext& context) {
  check_flash(args, plans, context.sfu->tables().has_lg2());
  const MatrixUnit& unit = args.unit;
  require(unit.products > 0 && unit.products <= 16 && 16 % unit.products == 0, "attention on CUDA: a unit of ",
          unit.products, " products per step; one of: 1, 2, 4, 8, 16");
  const auto aligned = [](const void* pointer, int64_t stride) {
    return reinterpret_cast<uintptr_t>(pointer) % 16 == 0 && stride % 8 == 0;
  };
  for (int64_t i = 0; i < args.sequence_count; ++i) {
    const AttentionSequence& s = args.sequences[i];
    require(aligned(s.q, args.q_stride) && aligned(s.k, args.k_stride) && aligned(s.v, args.v_stride),
            "attention on CUDA: sequence ", i, ": q, k and v need tokens aligned to 16 bytes");
    require(s.keys < (int64_t{1} << 30) && packed_rows(args, s) < (int64_t{1} << 30), "attention on CUDA: sequence ", i,
            " with ", s.queries, " queries and ", s.keys, " keys is too long");
  }
}

void attention_flash(const DeviceOperatorContext& context, const AttentionArgs& args,
                     const std::vector<FlashPlan>& plans) {
  check_arguments(args, plans, context);
  for (const Batch& batch : make_batches(context, args, plans)) run_batch(context, args, plans[0], batch);
}

}  // namespace

Scheme attention_scheme(const MatrixUnit& unit, OwnUnit own) {
  const Scheme scheme = scheme_for(unit, own);
  const bool serves = scheme == Scheme::native || scheme == Scheme::pinned;
  return unit.rounding == Rounding::fp32_toward_zero && serves ? scheme : Scheme::definition;
}

void attention_fa3(const DeviceOperatorContext& context, const AttentionArgs& args) {
  check_attention(args);
  attention_flash(context, args, plan_fa3(args));
}

std::vector<int64_t> place_attention(const DeviceOperatorContext& context, std::string_view definition,
                                     const AttentionArgs& args) {
  check_attention(args);
  if (definition != "fa2" && definition != "fa3") return {};
  const auto plans = definition == "fa3" ? plan_fa3(args) : plan_fa2(args);
  const std::vector<Batch> batches = make_batches(context, args, plans);
  if (batches.size() != 1 || args.sequence_count > kInlineSequences || context.tables == nullptr) return {};
  std::vector<int64_t> shape;
  const auto place = [&](FlashItems& device, const std::vector<FlashItem>& items) {
    shape.push_back(static_cast<int64_t>(items.size()));
    if (items.empty()) return;
    const FlashItem* at = device.place(items, *context.allocator, context.stream);
    shape.push_back(static_cast<int64_t>(reinterpret_cast<intptr_t>(at)));
  };
  place(context.tables->few, batches[0].few);
  place(context.tables->many, batches[0].many);
  for (const FlashSequence& s : batches[0].sequences) shape.insert(shape.end(), {s.queries, s.parts});
  return shape;
}

void attention_fa2(const DeviceOperatorContext& context, const AttentionArgs& args) {
  check_attention(args);
  attention_flash(context, args, plan_fa2(args));
}

}  // namespace qf::cuda
