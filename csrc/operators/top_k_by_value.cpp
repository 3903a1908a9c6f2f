#include "operators/top_k.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "operators/vector_ops.h"

namespace qf {
namespace {

struct Entry {
  float value;
  int32_t id;
};

/// a ranks above b, whatever their ids: a NaN is below every number.
bool above(float a, float b) { return a > b || (b != b && a == a); }

/// Order of the result: larger values first, lower ids first among equals.
bool before(const Entry& a, const Entry& b) {
  return above(a.value, b.value) || (!above(b.value, a.value) && a.id < b.id);
}

/// The first k entries in that order.
std::vector<Entry> largest(const VectorOps& ops, const float* values, int64_t columns, int64_t k) {
  std::vector<Entry> kept;  // a heap whose front is the entry to beat
  kept.reserve(static_cast<size_t>(k));
  for (int64_t i = 0; i < k; ++i) kept.push_back({values[i], static_cast<int32_t>(i)});
  std::make_heap(kept.begin(), kept.end(), before);
  constexpr int64_t kBlock = 256;  // most blocks hold nothing that beats the front
  for (int64_t first = k; first < columns; first += kBlock) {
    const int64_t end = std::min(columns, first + kBlock);
    if (!above(ops.max(values + first, end - first), kept.front().value)) continue;
    for (int64_t i = first; i < end; ++i) {
      if (!above(values[i], kept.front().value)) continue;  // ids ascend, so an equal value never displaces one
      std::pop_heap(kept.begin(), kept.end(), before);
      kept.back() = {values[i], static_cast<int32_t>(i)};
      std::push_heap(kept.begin(), kept.end(), before);
    }
  }
  std::sort(kept.begin(), kept.end(), before);
  return kept;
}

}  // namespace

void top_k_by_value(const OperatorContext& context, const TopKArgs& args) {
  require(args.k >= 0 && args.k <= args.columns, "top ", args.k, " of ", args.columns, " columns");
  if (args.k == 0) return;
  const VectorOps& ops = vector_ops(context.isa);
  context.pool->run(args.rows, [&](int64_t row) {
    const std::vector<Entry> kept = largest(ops, args.logprobs + row * args.columns, args.columns, args.k);
    for (int64_t i = 0; i < args.k; ++i) {
      args.ids[row * args.k + i] = kept[static_cast<size_t>(i)].id;
      args.values[row * args.k + i] = kept[static_cast<size_t>(i)].value;
    }
  });
}

}  // namespace qf
