// RMS norm in fp32: sums in double, one division and one square root.
#include <cmath>

#include "operators/elements.h"
#include "operators/rms_norm.h"

namespace qf {
namespace {

void norm_row(const float* x, const float* weight, int64_t columns, float epsilon, float* out) {
  double total = 0.0;
  for (int64_t i = 0; i < columns; ++i) total += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  const double mean = total / static_cast<double>(columns);
  const float s = static_cast<float>(1.0 / std::sqrt(mean + static_cast<double>(epsilon)));
  for (int64_t i = 0; i < columns; ++i) out[i] = one_nan(x[i] * s * weight[i]);
}

}  // namespace

void rms_norm_fp32(const OperatorContext& context, const RmsNormArgs& args) {
  context.pool->run(args.rows, [&](int64_t row) {
    const int64_t offset = row / args.inner_rows * args.stride + row % args.inner_rows * args.inner_stride;
    norm_row(static_cast<const float*>(args.x) + offset, static_cast<const float*>(args.weight), args.columns,
             args.epsilon, static_cast<float*>(args.out) + offset);
  });
}

void fused_add_rms_norm_fp32(const OperatorContext& context, const FusedAddRmsNormArgs& args) {
  context.pool->run(args.rows, [&](int64_t row) {
    const int64_t offset = row * args.columns;
    const float* x = static_cast<const float*>(args.x) + offset;
    const float* residual = static_cast<const float*>(args.residual) + offset;
    float* sum = static_cast<float*>(args.residual_out) + offset;
    for (int64_t i = 0; i < args.columns; ++i) sum[i] = one_nan(x[i] + residual[i]);
    norm_row(sum, static_cast<const float*>(args.weight), args.columns, args.epsilon,
             static_cast<float*>(args.out) + offset);
  });
}

}  // namespace qf
