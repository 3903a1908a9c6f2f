// From logits to the logprobs that a trace keeps.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/transformer.h"

namespace qf {

/// Rows of trace.LogprobRows: per row the top_k in order, then the target where it is missing, then further requested
/// ids.
struct LogprobRows {
  std::vector<int32_t> targets;
  std::vector<int64_t> offsets = {0};
  std::vector<int32_t> ids;
  std::vector<float> logprobs;
};

/// Ids asked for beside the top-k: entries [offsets[row], offsets[row + 1]) of ids; empty offsets ask for none.
struct RequestedIds {
  std::vector<int64_t> offsets;
  std::vector<int32_t> ids;
};

/// One row of logits: what is wanted of it, and where it goes (null: nowhere). A target below zero means: the row's
/// largest logprob.
struct RowCapture {
  int32_t target;
  const RequestedIds* requested;
  int64_t requested_row;
  LogprobRows* rows;
};

/// Appends one row per row of logits ([rows, vocabulary]).
void capture_logprobs(Transformer& model, const at::Tensor& logits, const std::vector<RowCapture>& captures,
                      int64_t top_k);

}  // namespace qf
