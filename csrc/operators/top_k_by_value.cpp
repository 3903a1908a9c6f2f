#include "operators/top_k.h"

#include <algorithm>
#include <vector>

#include "base/error.h"

namespace qf {
namespace {

struct Entry {
  float value;
  int32_t id;
};

/// Order of the result: larger values first, lower ids first among equals.
bool before(const Entry& a, const Entry& b) { return a.value > b.value || (a.value == b.value && a.id < b.id); }

}  // namespace

void top_k_by_value(const OperatorContext& context, const TopKArgs& args) {
  require(args.k >= 0 && args.k <= args.columns, "top ", args.k, " of ", args.columns, " columns");
  if (args.k == 0) return;
  context.pool->run(args.rows, [&](int64_t row) {
    const float* values = args.logprobs + row * args.columns;
    std::vector<Entry> kept;  // a heap whose front is the entry to beat
    kept.reserve(static_cast<size_t>(args.k));
    for (int64_t i = 0; i < args.columns; ++i) {
      const Entry entry{values[i], static_cast<int32_t>(i)};
      if (static_cast<int64_t>(kept.size()) < args.k) {
        kept.push_back(entry);
        std::push_heap(kept.begin(), kept.end(), before);
      } else if (entry.value > kept.front().value) {  // ids ascend, so an equal value never displaces one
        std::pop_heap(kept.begin(), kept.end(), before);
        kept.back() = entry;
        std::push_heap(kept.begin(), kept.end(), before);
      }
    }
    std::sort(kept.begin(), kept.end(), before);
    for (int64_t i = 0; i < args.k; ++i) {
      args.ids[row * args.k + i] = kept[static_cast<size_t>(i)].id;
      args.values[row * args.k + i] = kept[static_cast<size_t>(i)].value;
    }
  });
}

}  // namespace qf
