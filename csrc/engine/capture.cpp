#include "engine/capture.h"

#include <algorithm>

namespace qf {
namespace {

constexpr int64_t kChunkRows = 16;  // bounds the fp32 logprobs held at once

void append_row(const float* logprobs, const int32_t* top_ids, const float* top_values, int64_t top_k, int32_t target,
                std::vector<int32_t> extra, LogprobRows& rows) {
  rows.targets.push_back(target);
  rows.ids.insert(rows.ids.end(), top_ids, top_ids + top_k);
  rows.logprobs.insert(rows.logprobs.end(), top_values, top_values + top_k);
  const auto add = [&](int32_t id) {
    rows.ids.push_back(id);
    rows.logprobs.push_back(logprobs[id]);
  };
  const auto in_top = [&](int32_t id) { return std::find(top_ids, top_ids + top_k, id) != top_ids + top_k; };
  if (!in_top(target)) add(target);
  std::sort(extra.begin(), extra.end());
  extra.erase(std::unique(extra.begin(), extra.end()), extra.end());
  for (const int32_t id : extra) {
    if (id != target && !in_top(id)) add(id);
  }
  rows.offsets.push_back(static_cast<int64_t>(rows.ids.size()));
}

}  // namespace

void capture_logprobs(Transformer& model, const at::Tensor& logits, const std::vector<int32_t>& targets, int64_t top_k,
                      const RequestedIds& requested, int64_t first_requested_row, LogprobRows& rows) {
  const int64_t vocabulary = logits.size(1), count = logits.size(0);
  require(static_cast<int64_t>(targets.size()) == count, "capture: ", targets.size(), " targets for ", count, " rows");
  std::vector<float> logprobs(static_cast<size_t>(std::min(count, kChunkRows) * vocabulary));
  std::vector<int32_t> ids(static_cast<size_t>(kChunkRows * top_k));
  std::vector<float> values(ids.size());
  for (int64_t first = 0; first < count; first += kChunkRows) {
    const int64_t n = std::min(kChunkRows, count - first);
    const LogSoftmaxArgs softmax{model.dtype(), logits.narrow(0, first, n).data_ptr(), logprobs.data(), n, vocabulary,
                                 vocabulary};
    model.log_softmax(softmax);
    model.top_k({logprobs.data(), n, vocabulary, top_k, ids.data(), values.data()});
    for (int64_t i = 0; i < n; ++i) {
      const int32_t target = targets[static_cast<size_t>(first + i)];
      std::vector<int32_t> extra;
      if (!requested.offsets.empty()) {
        const size_t row = static_cast<size_t>(first_requested_row + first + i);
        extra.assign(requested.ids.begin() + requested.offsets[row],
                     requested.ids.begin() + requested.offsets[row + 1]);
      }
      append_row(logprobs.data() + i * vocabulary, ids.data() + i * top_k, values.data() + i * top_k, top_k,
                 target < 0 ? ids[static_cast<size_t>(i * top_k)] : target, std::move(extra), rows);
    }
  }
}

}  // namespace qf
