#include "kernels/emulate/activations.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/emulate/convert.h"
#include "kernels/emulate/half_window.h"

namespace qf {
namespace {

int64_t scales_per_row(const Plan& plan) { return plan.step == StepRule::int32 ? plan.k / plan.activation_group : 0; }

/// Symmetric int8 per group: scale = absmax / 127, number = RNE(x / scale).
void quantize_row(int64_t k, int64_t group, float* value, float* scale) {
  for (int64_t g = 0; g < k / group; ++g) {
    float largest = 0.0f;
    for (int64_t i = g * group; i < (g + 1) * group; ++i) largest = std::max(largest, std::fabs(value[i]));
    scale[g] = largest / 127.0f;
    for (int64_t i = g * group; i < (g + 1) * group; ++i) {
      value[i] = scale[g] == 0.0f ? 0.0f : std::nearbyint(value[i] / scale[g]);
    }
  }
}

bool takes_window(const Plan& plan, const ExecutorContext& context, int64_t rows) {
  constexpr int64_t kManyRows = 64;  // pay for a look at all exponents of a weight
  const bool wide = uses_matrix_unit(plan) && plan.unit.input_exponent < kHalfLowest;
  const bool cheap = context.spans != nullptr || rows >= kManyRows;
  return wide && (context.window == HalfWindow::always || (context.window == HalfWindow::where_cheap && cheap));
}

void find_half_window(const Plan& plan, const ExecutorContext& context, Activations& activations) {
  std::vector<ExponentSpan> spans(static_cast<size_t>(activations.rows));
  const auto row_values = [&](int64_t row) { return activations.value.get() + row * activations.ld; };
  context.pool->run(activations.rows,
                    [&](int64_t row) { spans[static_cast<size_t>(row)] = span_of(row_values(row), plan.k); });
  ExponentSpan all;
  for (const ExponentSpan& span : spans) all.join(span);
  const std::optional<int> shift = half_window(all);
  if (!shift) return;
  activations.shift = *shift;
  activations.half_cell =
      std::make_unique<AlignedArray<uint32_t>>(static_cast<size_t>(activations.rows * activations.ld));
  const float factor = std::ldexp(1.0f, *shift);
  context.pool->run(activations.rows, [&](int64_t row) {
    float* const value = row_values(row);
    for (int64_t i = 0; i < plan.k; ++i) value[i] *= factor;
    const int64_t at = row * activations.ld;
    row_cell_span(context.isa, plan.unit.input_exponent, value, activations.cell.get() + at, activations.ld);
    row_cell_span(context.isa, kHalfLowest, value, activations.half_cell->get() + at, activations.ld);
  });
}

}  // namespace

Activations::Activations(const Plan& plan, int64_t rows)
    : rows(rows),
      ld((plan.k + 15) / 16 * 16),  // rows start on a cache line
      value(static_cast<size_t>(rows * ld)),
      cell(uses_matrix_unit(plan) ? static_cast<size_t>(rows * ld) : 0),
      row_scale(static_cast<size_t>(rows * scales_per_row(plan))),
      row_scale_ld(scales_per_row(plan)) {}

void load_activations(const Plan& plan, const PackedWeight& weight, const GemmArgs& args,
                      const ExecutorContext& context, int64_t begin, Activations& activations) {
  const int64_t element = plan.activations == Format::fp32 ? 4 : 2, k = plan.k;
  context.pool->run(activations.rows, [&](int64_t row) {
    const char* source = static_cast<const char*>(args.activations) + (begin + row) * args.lda * element;
    float* value = activations.value.get() + row * activations.ld;
    std::fill(value + k, value + activations.ld, 0.0f);
    if (weight.order.empty() || plan.file_order) {
      widen_span(context.isa, plan.activations, source, value, k);
    } else {
      std::vector<float> plain(static_cast<size_t>(k));
      widen_span(context.isa, plan.activations, source, plain.data(), k);
      for (int64_t i = 0; i < k; ++i) value[i] = plain[static_cast<size_t>(weight.order[static_cast<size_t>(i)])];
    }
    if (uses_matrix_unit(plan)) {
      row_cell_span(context.isa, plan.unit.input_exponent, value, activations.cell.get() + row * activations.ld,
                    activations.ld);
    }
    if (plan.step == StepRule::int32) {
      quantize_row(k, plan.activation_group, value, activations.row_scale.get() + row * activations.row_scale_ld);
    }
  });
  if (takes_window(plan, context, activations.rows)) find_half_window(plan, context, activations);
}

}  // namespace qf
