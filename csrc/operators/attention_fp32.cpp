// Causal attention in fp32, one query and head at a time, every sum in a fixed order.
#include <algorithm>
#include <vector>

#include "base/error.h"
#include "operators/attention.h"
#include "operators/elements.h"
#include "operators/portable_math.h"
#include "operators/vector_ops.h"

namespace qf {
namespace {

/// Product of two vectors: 16 running sums, element i in sum i mod 16, then added pairwise. n is a multiple of 16.
float dot(const float* a, const float* b, int64_t n) {
  float sums[16] = {};
  for (int64_t i = 0; i < n; i += 16) {
    for (int lane = 0; lane < 16; ++lane) sums[lane] += a[i + lane] * b[i + lane];
  }
  for (int width = 8; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) sums[lane] += sums[lane + width];
  }
  return sums[0];
}

void attend(const VectorOps& ops, const AttentionArgs& args, const AttentionSequence& sequence, int64_t query,
            int64_t head) {
  const int64_t kv_offset = head / (args.heads / args.kv_heads) * args.head_size;
  const float* q = static_cast<const float*>(sequence.q) + query * args.q_stride + head * args.head_size;
  const float* k = static_cast<const float*>(sequence.k) + kv_offset;
  const float* v = static_cast<const float*>(sequence.v) + kv_offset;
  float* out = static_cast<float*>(sequence.out) + query * args.out_stride + head * args.head_size;
  const int64_t visible = sequence.keys - sequence.queries + query + 1;
  std::vector<float> p(static_cast<size_t>(visible));
  for (int64_t j = 0; j < visible; ++j)
    p[static_cast<size_t>(j)] = dot(q, k + j * args.k_stride, args.head_size) * args.scale;
  const float largest = ops.max(p.data(), visible);
  double total = 0.0;
  for (float& value : p) {
    value = portable_exp(value - largest);
    total += static_cast<double>(value);
  }
  float sums[128] = {};
  for (int64_t j = 0; j < visible; ++j) {
    const float weight = p[static_cast<size_t>(j)];
    const float* row = v + j * args.v_stride;
    for (int64_t d = 0; d < args.head_size; ++d) sums[d] += weight * row[d];
  }
  const float inverse = static_cast<float>(1.0 / total);
  for (int64_t d = 0; d < args.head_size; ++d) out[d] = one_nan(sums[d] * inverse);
}

}  // namespace

void attention_fp32(const OperatorContext& context, const AttentionArgs& args) {
  check_attention(args);
  require(args.dtype == DType::fp32, "attention fp32: activations are ", dtype_name(args.dtype));
  const VectorOps& ops = vector_ops(context.isa);
  for (int64_t i = 0; i < args.sequence_count; ++i) {
    const AttentionSequence& sequence = args.sequences[i];
    context.pool->run(sequence.queries * args.heads,
                      [&](int64_t item) { attend(ops, args, sequence, item / args.heads, item % args.heads); });
  }
}

}  // namespace qf
