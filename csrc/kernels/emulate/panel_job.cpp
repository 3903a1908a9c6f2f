#include "kernels/emulate/panel_job.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "base/half.h"
#include "kernels/emulate/combine.h"
#include "kernels/emulate/convert.h"
#include "kernels/emulate/dequantize.h"
#include "kernels/emulate/half_window.h"
#include "kernels/emulate/scalar_chain.h"

namespace qf {
namespace {

/// k per stretch: values and cells of four panels take 160 KiB, so that a stretch stays in a core's L2.
constexpr int64_t kStretch = 512;

/// The part of a region inside the job: local rows, panels of the group, and its leaves' accumulators.
struct Slice {
  const Tree* tree;
  int64_t row_begin, rows;                            // local to the row block
  int64_t panel_begin, panels;                        // local to the group
  int64_t columns;                                    // panels * 16, padding included
  std::unique_ptr<AlignedArray<float>> accumulators;  // [leaf][rows][columns]

  float* leaf(size_t index) const { return accumulators->get() + static_cast<int64_t>(index) * rows * columns; }
};

/// Calls piece(walk) for the parts of `walk` inside [begin, end), ascending.
template <class Piece>
void clip_walk(const KWalk& walk, int64_t begin, int64_t end, Piece piece) {
  const int64_t skip = begin - walk.start - walk.length;
  for (int64_t i = skip < 0 ? 0 : skip / walk.stride + 1; i < walk.count;) {
    const int64_t from = walk.start + i * walk.stride, to = from + walk.length;
    if (from >= end) return;
    if (from >= begin && to <= end) {  // as many whole items as fit
      const int64_t whole = std::min(walk.count - i, (end - to) / walk.stride + 1);
      piece(KWalk{from, walk.length, walk.stride, whole});
      i += whole;
      continue;
    }
    const int64_t cut_from = std::max(from, begin), length = std::min(to, end) - cut_from;
    piece(KWalk{cut_from, length, length, 1});
    ++i;
  }
}

class PanelJob {
 public:
  PanelJob(const CallState& call, int64_t panel_group)
      : call_(call),
        first_panel_(panel_group * kGroupPanels),
        panels_(std::min(kGroupPanels, call.weight.panels() - first_panel_)),
        unit_(call.plan.unit),
        stretch_(stretch_length(call.plan)),
        value_(static_cast<size_t>(panels_ * stretch_ * kPanelWidth)),
        cells_(cell_bytes(call.plan, stretch_)) {
    look_for_half_window();
    // lanes of panels that the last group lacks stay zero
    if (panels_ != kGroupPanels) std::memset(cells_.get(), 0, cell_bytes(call.plan, stretch_));
  }

  void run() {
    make_slices();
    load_scales();
    if (call_.plan.file_order && !call_.weight.order.empty()) load_in_file_order();
    for (int64_t k = 0; k < call_.plan.k; k += stretch_) {
      const int64_t end = std::min(call_.plan.k, k + stretch_);
      load_panels(k, end);
      for (const Slice& slice : slices_) run_leaves(slice, k, end);
    }
    for (const Slice& slice : slices_) finish(slice);
  }

 private:
  void look_for_half_window() {
    if (call_.activations.half_cell == nullptr) return;
    ExponentSpan span;
    for (int64_t p = 0; p < panels_; ++p) span.join(panel_span(first_panel_ + p));
    const std::optional<int> shift = half_window(span);
    back_ = std::ldexp(1.0f, -call_.activations.shift - shift.value_or(0));
    if (!shift) return;
    factor_ = std::ldexp(1.0f, *shift);
    unit_.input_exponent = kHalfLowest;
  }
  ExponentSpan panel_span(int64_t panel) const {
    const Isa isa = call_.context.isa;
    PanelSpans* const known = call_.context.spans;
    return known ? known->of(isa, call_.weight, panel) : span_of(isa, call_.plan.weight, call_.weight, panel);
  }
  Handing handing() const { return {unit_.input_exponent, factor_}; }

  static int64_t stretch_length(const Plan& plan) {
    const int64_t unit = plan.step == StepRule::int32 ? plan.activation_group : 16;
    return std::min((plan.k + 15) / 16 * 16, std::max<int64_t>(1, kStretch / unit) * unit);
  }
  static size_t cell_bytes(const Plan& plan, int64_t stretch) {
    if (!uses_matrix_unit(plan)) return 0;
    return static_cast<size_t>(kGroupPanels / panels_per_cell(plan.unit.input_exponent) * stretch * kCellBytes);
  }
  float* panel_value(int64_t panel) { return value_.get() + panel * stretch_ * kPanelWidth; }
  PanelCodes panel_codes(int64_t panel) {
    const int64_t per_cell = panels_per_cell(unit_.input_exponent);
    return {cells_.get() + panel / per_cell * stretch_ * kCellBytes, static_cast<int>(panel % per_cell)};
  }
  const float* panel_scale(int64_t panel) const { return scales_.data() + panel * call_.weight.groups() * kPanelWidth; }

  void load_panels(int64_t k_begin, int64_t k_end) {
    const bool exponents = uses_matrix_unit(call_.plan);
    const int lowest = unit_.input_exponent;
    int64_t p = 0;
    if (!ordered_.empty()) {
      load_ordered(k_begin, k_end);
      p = panels_;
    }
    const int64_t shared = exponents ? panels_per_cell(lowest) : panels_ + 1;
    for (; p + shared <= panels_; p += shared) {
      dequantize_shared(call_.context.isa, call_.plan.weight, call_.weight, first_panel_ + p, k_begin, k_end, handing(),
                        panel_value(p), stretch_ * kPanelWidth, panel_codes(p).cells);
    }
    for (; p < panels_; ++p) {
      dequantize(call_.context.isa, call_.plan.weight, call_.weight, first_panel_ + p, k_begin, k_end, handing(),
                 panel_value(p), exponents ? panel_codes(p) : PanelCodes{});
    }
    // K that is no multiple of 16 ends in zeros, which change no step
    const int64_t rows = k_end - k_begin, padded = (rows + 15) / 16 * 16;
    if (!exponents || rows == padded) return;
    for (p = 0; p < panels_; ++p) {
      float* const tail = panel_value(p) + rows * kPanelWidth;
      std::fill(tail, panel_value(p) + padded * kPanelWidth, 0.0f);
      const PanelCodes codes = panel_codes(p);
      panel_code_span(call_.context.isa, lowest, tail, {codes.cells + rows * kCellBytes, codes.lane}, padded - rows);
    }
  }

  void load_ordered(int64_t k_begin, int64_t k_end) {
    const int64_t rows = k_end - k_begin;
    for (int64_t p = 0; p < panels_; ++p) {
      std::copy_n(ordered_.data() + (p * call_.plan.k + k_begin) * kPanelWidth, rows * kPanelWidth, panel_value(p));
      if (uses_matrix_unit(call_.plan)) {
        panel_code_span(call_.context.isa, unit_.input_exponent, panel_value(p), panel_codes(p), rows);
      }
    }
  }

  /// Act-order: the panels' weights with every row back where the checkpoint has it.
  void load_in_file_order() {
    const int64_t k = call_.plan.k;
    ordered_.resize(static_cast<size_t>(panels_ * k * kPanelWidth));
    AlignedArray<float> sorted(static_cast<size_t>(k * kPanelWidth));
    for (int64_t p = 0; p < panels_; ++p) {
      dequantize(call_.context.isa, call_.plan.weight, call_.weight, first_panel_ + p, 0, k, handing(), sorted.get(),
                 {});
      for (int64_t i = 0; i < k; ++i) {
        const int64_t row = p * k + call_.weight.order[static_cast<size_t>(i)];
        std::copy_n(sorted.get() + i * kPanelWidth, kPanelWidth, ordered_.data() + row * kPanelWidth);
      }
    }
  }

  void make_slices() {
    const int64_t row_end = call_.row_begin + call_.activations.rows, column = first_panel_ * kPanelWidth;
    for (const Region& region : call_.plan.regions) {
      const int64_t r0 = std::max(region.row_begin, call_.row_begin), r1 = std::min(region.row_end, row_end);
      const int64_t c0 = std::max(region.column_begin, column);
      const int64_t c1 = std::min(region.column_end, column + panels_ * kPanelWidth);
      if (r0 >= r1 || c0 >= c1) continue;
      const Tree& tree = call_.plan.trees[static_cast<size_t>(region.tree)];
      const int64_t panels = (c1 - c0 + kPanelWidth - 1) / kPanelWidth, columns = panels * kPanelWidth;
      const size_t floats = tree.leaves.size() * static_cast<size_t>((r1 - r0) * columns);
      slices_.push_back({&tree, r0 - call_.row_begin, r1 - r0, (c0 - column) / kPanelWidth, panels, columns,
                         std::make_unique<AlignedArray<float>>(floats)});
      std::fill_n(slices_.back().accumulators->get(), floats, 0.0f);
    }
  }

  /// fp32 scales of the group's panels, for the rules that scale after multiplying.
  void load_scales() {
    const bool needed = call_.plan.step == StepRule::half2_chain || call_.plan.step == StepRule::int32 ||
                        call_.plan.epilogue.channel_scale;
    if (!needed) return;
    const int64_t count = panels_ * call_.weight.groups() * kPanelWidth;
    scales_.resize(static_cast<size_t>(count));
    widen_span(call_.context.isa, call_.weight.format,
               call_.weight.scales.data() + first_panel_ * call_.weight.groups() * kPanelWidth, scales_.data(), count);
  }

  void run_leaves(const Slice& slice, int64_t k_begin, int64_t k_end) {
    for (size_t i = 0; i < slice.tree->leaves.size(); ++i) {
      for (const KWalk& walk : slice.tree->leaves[i].walks) {
        clip_walk(walk, k_begin, k_end, [&](KWalk piece) {
          const bool tail = piece.start + piece.length == call_.plan.k;
          piece.start -= k_begin;
          if (uses_matrix_unit(call_.plan)) {
            if (tail && piece.count == 1) piece.length = (piece.length + 15) / 16 * 16;
            unit_chain(slice, piece, k_begin, slice.leaf(i));
          } else {
            scalar_chain(slice, piece, k_begin, slice.leaf(i));
          }
        });
      }
    }
  }

  void unit_chain(const Slice& slice, const KWalk& walk, int64_t k_begin, float* accumulator) {
    ChainPanel panels[kGroupPanels];
    for (int64_t p = 0; p < slice.panels; ++p) {
      panels[p] = {panel_value(slice.panel_begin + p), panel_codes(slice.panel_begin + p)};
    }
    const int64_t at = slice.row_begin * call_.activations.ld + k_begin;
    const bool fresh = call_.plan.step == StepRule::matrix_unit_fresh;
    const Activations& a = call_.activations;
    const bool half = a.half_cell != nullptr && unit_.input_exponent == kHalfLowest;
    dot_chain(call_.context.isa, {.unit = unit_,
                                  .accumulate = fresh ? Accumulate::fresh_add : Accumulate::carried,
                                  .walk = walk,
                                  .rows = {a.value.get() + at, (half ? a.half_cell->get() : a.cell.get()) + at, a.ld},
                                  .row_count = static_cast<int>(slice.rows),
                                  .panels = panels,
                                  .panel_count = static_cast<int>(slice.panels),
                                  .accumulator = accumulator,
                                  .accumulator_ld = slice.columns});
  }

  void scalar_chain(const Slice& slice, const KWalk& walk, int64_t k_begin, float* accumulator) {
    ScaledPanel panels[kGroupPanels];
    for (int64_t p = 0; p < slice.panels; ++p) {
      panels[p] = {panel_value(slice.panel_begin + p), scales_.empty() ? nullptr : panel_scale(slice.panel_begin + p)};
    }
    const Activations& a = call_.activations;
    const ScalarChainArgs args = {.walk = walk,
                                  .k_origin = k_begin,
                                  .group = call_.weight.group,
                                  .activation_group = call_.plan.activation_group,
                                  .rows = a.value.get() + slice.row_begin * a.ld + k_begin,
                                  .row_scale = a.row_scale.get() + slice.row_begin * a.row_scale_ld,
                                  .ld = a.ld,
                                  .row_scale_ld = a.row_scale_ld,
                                  .row_count = static_cast<int>(slice.rows),
                                  .panels = panels,
                                  .panel_count = static_cast<int>(slice.panels),
                                  .accumulator = accumulator,
                                  .accumulator_ld = slice.columns};
    switch (call_.plan.step) {
      case StepRule::half2_chain: return half2_chain(call_.context.isa, args);
      case StepRule::int32: return int32_chain(call_.context.isa, args);
      default: return float_chain(call_.context.isa, args);
    }
  }

  void finish(const Slice& slice) {
    const Tree& tree = *slice.tree;
    const int64_t column = (first_panel_ + slice.panel_begin) * kPanelWidth;
    const int64_t kept = std::min(slice.columns, call_.plan.n - column);
    const int64_t count = static_cast<int64_t>(tree.leaves.size()) * slice.rows * slice.columns;
    if (back_ != 1.0f) {
      for (int64_t i = 0; i < count; ++i) slice.accumulators->get()[i] *= back_;
    }
    narrow_span(call_.context.isa, tree.leaf_narrow, slice.accumulators->get(), count);
    if (call_.leaves != nullptr) return write_leaves(slice, column, kept);
    std::vector<float> scratch(std::max<size_t>(2, tree.adds.size()) * static_cast<size_t>(slice.columns));
    std::vector<float> result(static_cast<size_t>(slice.columns)), bias = bias_of(column, kept),
                                                                   scale = scale_of(slice);
    const EpilogueArgs epilogue = {&call_.plan.epilogue, scale.data(), bias.data()};
    const int64_t element = call_.plan.epilogue.output == Format::fp32 ? 4 : 2;
    for (int64_t r = 0; r < slice.rows; ++r) {
      const int64_t row = call_.row_begin + slice.row_begin + r;
      const LeafRow leaves = {slice.leaf(0) + r * slice.columns, slice.rows * slice.columns, slice.columns};
      const float* root = tree.racing
                              ? race_row(call_.context.isa, tree, leaves, call_.context, row, column, scratch.data())
                              : combine_row(call_.context.isa, tree, leaves, scratch.data());
      char* out =
          static_cast<char*>(call_.args.out) + ((row - call_.args.first_row) * call_.args.ldo + column) * element;
      finish_row(call_.context.isa, epilogue, root, kept, out, result.data());
    }
  }

  void write_leaves(const Slice& slice, int64_t column, int64_t kept) {
    for (size_t i = 0; i < slice.tree->leaves.size(); ++i) {
      for (int64_t r = 0; r < slice.rows; ++r) {
        const int64_t row = static_cast<int64_t>(i) * call_.plan.m + call_.row_begin + slice.row_begin + r;
        std::copy_n(slice.leaf(i) + r * slice.columns, kept, call_.leaves + row * call_.plan.n + column);
      }
    }
  }

  std::vector<float> bias_of(int64_t column, int64_t columns) const {
    std::vector<float> bias(static_cast<size_t>(columns), 0.0f);
    if (call_.plan.epilogue.bias == BiasRule::none) return bias;
    const Format format = call_.plan.epilogue.output;
    const char* source = static_cast<const char*>(call_.args.bias) + column * (format == Format::fp32 ? 4 : 2);
    widen_span(call_.context.isa, format, source, bias.data(), columns);
    return bias;
  }

  std::vector<float> scale_of(const Slice& slice) const {
    if (!call_.plan.epilogue.channel_scale) return {};
    const float* first = panel_scale(slice.panel_begin);  // one group: panels lie side by side
    return std::vector<float>(first, first + slice.columns);
  }

  const CallState& call_;
  int64_t first_panel_, panels_;
  MatrixUnit unit_;                    // the plan's, or through fp16's window, see half_window.h
  float factor_ = 1.0f, back_ = 1.0f;  // of the weights; of the sums
  int64_t stretch_;
  AlignedArray<float> value_;    // [panel][stretch][16]
  AlignedArray<uint8_t> cells_;  // [panels that share cells][stretch][16] cells of exponent codes, for matrix units
  std::vector<float> scales_;    // [panel][group][16]
  std::vector<float> ordered_;   // [panel][k][16], only where file_order asks for another order than the panels'
  std::vector<Slice> slices_;
};

}  // namespace

void run_panel_group(const CallState& call, int64_t panel_group) { PanelJob(call, panel_group).run(); }

}  // namespace qf
