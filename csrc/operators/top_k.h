// The k largest logprobs of a row, in the order of trace.LogprobRows.
#pragma once

#include "operators/context.h"

namespace qf {

struct TopKArgs {
  const float* logprobs;  // [rows][columns]
  int64_t rows;
  int64_t columns;
  int64_t k;      // <= columns
  int32_t* ids;   // [rows][k]: value descending, equal values by ascending id; NaN below all numbers
  float* values;  // [rows][k]
};

void top_k_by_value(const OperatorContext& context, const TopKArgs& args);

}  // namespace qf
