// Log-softmax in fp32, the sum of exponentials in double.
#include "base/error.h"
#include "operators/elements.h"
#include "operators/log_softmax.h"
#include "operators/portable_math.h"
#include "operators/vector_ops.h"

namespace qf {

void log_softmax_fp32(const OperatorContext& context, const LogSoftmaxArgs& args) {
  require(args.dtype == DType::fp32, "log_softmax fp32: logits are ", dtype_name(args.dtype));
  context.pool->run(args.rows, [&](int64_t row) {
    const float* x = static_cast<const float*>(args.logits) + row * args.stride;
    float* out = args.out + row * args.columns;
    const float largest = vector_ops(context.isa).max(x, args.columns);
    double total = 0.0;
    for (int64_t i = 0; i < args.columns; ++i) total += static_cast<double>(portable_exp(x[i] - largest));
    const float log_sum = portable_log(static_cast<float>(total));
    for (int64_t i = 0; i < args.columns; ++i) out[i] = one_nan((x[i] - largest) - log_sum);
  });
}

}  // namespace qf
