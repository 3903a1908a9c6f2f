// The k largest logprobs of a row, and those of requested ids, in the order of trace.LogprobRows.
#pragma once

#include "operators/context.h"

namespace qf {

struct TopKArgs {
  const float* logprobs;  // [rows][columns]
  int64_t rows;
  int64_t columns;
  int64_t k;      // <= columns
  int32_t* ids;   // [rows][k]: value descending, equal values by ascending id
  float* values;  // [rows][k]
};

void top_k_by_value(const OperatorContext& context, const TopKArgs& args);

}  // namespace qf
