#include "engine/capture.h"

#include <algorithm>

namespace qf {
namespace {

/// Further ids of a row, ascending, each once.
std::vector<int32_t> extra_ids(const RowCapture& capture) {
  const RequestedIds& requested = *capture.requested;
  if (requested.offsets.empty()) return {};
  const size_t row = static_cast<size_t>(capture.requested_row);
  std::vector<int32_t> extra(requested.ids.begin() + requested.offsets[row],
                             requested.ids.begin() + requested.offsets[row + 1]);
  std::sort(extra.begin(), extra.end());
  extra.erase(std::unique(extra.begin(), extra.end()), extra.end());
  return extra;
}

/// The row's part of an answer.
struct RowAnswer {
  const int32_t *top_ids, *ids, *ids_end;
  const float *top_values, *values;
  int64_t top_k;

  bool in_top(int32_t id) const { return std::find(top_ids, top_ids + top_k, id) != top_ids + top_k; }
};

void append_row(const RowCapture& capture, const RowAnswer& answer) {
  LogprobRows& rows = *capture.rows;
  const int32_t target = capture.target < 0 ? answer.top_ids[0] : capture.target;
  rows.targets.push_back(target);
  rows.ids.insert(rows.ids.end(), answer.top_ids, answer.top_ids + answer.top_k);
  rows.logprobs.insert(rows.logprobs.end(), answer.top_values, answer.top_values + answer.top_k);
  const float* value = answer.values;
  for (const int32_t* id = answer.ids; id != answer.ids_end; ++id, ++value) {
    const bool repeated = *id == target && id != answer.ids;  // the target stands first where it was asked for
    if (repeated || answer.in_top(*id)) continue;
    rows.ids.push_back(*id);
    rows.logprobs.push_back(*value);
  }
  rows.offsets.push_back(static_cast<int64_t>(rows.ids.size()));
}

}  // namespace

void capture_logprobs(Transformer& model, const at::Tensor& logits, const std::vector<RowCapture>& captures,
                      int64_t top_k) {
  const size_t count = static_cast<size_t>(logits.size(0));
  require(captures.size() == count, "capture: ", captures.size(), " requests for ", count, " rows");
  LogprobQuery query{model.dtype(), top_k, {}, {}};
  std::vector<size_t> begin;
  for (size_t i = 0; i < count; ++i) {
    begin.push_back(query.ids.size());
    if (captures[i].target >= 0) query.ids.push_back(captures[i].target);
    const std::vector<int32_t> extra = extra_ids(captures[i]);
    query.ids.insert(query.ids.end(), extra.begin(), extra.end());
    query.rows.resize(query.ids.size(), static_cast<int32_t>(i));
  }
  begin.push_back(query.ids.size());
  const LogprobAnswer answer = model.logprobs(logits, query);
  for (size_t i = 0; i < count; ++i) {
    if (captures[i].rows == nullptr) continue;
    const size_t top = i * static_cast<size_t>(top_k);
    append_row(captures[i], {answer.top_ids.data() + top, query.ids.data() + begin[i], query.ids.data() + begin[i + 1],
                             answer.top_values.data() + top, answer.single.data() + begin[i], top_k});
  }
}

}  // namespace qf
