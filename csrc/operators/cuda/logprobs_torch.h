// What a trace keeps of log_softmax_torch, straight from the logits: the k largest logprobs of a row and those of
// requested ids, with the bits of log_softmax_torch followed by top_k_by_value, but without writing the logprobs of a
// whole row.
#pragma once

#include "operators/context.h"
#include "operators/cuda/device_context.h"

namespace qf::cuda {

struct TopLogprobsArgs {
  DType dtype;
  const void* logits;  // [rows][columns]
  int64_t rows;
  int64_t columns;
  int64_t stride;  // elements between rows of logits
  int64_t k;       // <= columns; may be 0
  int32_t* ids;    // [rows][k], in the order of top_k_by_value
  float* values;   // [rows][k]
  float* totals;   // [rows][2]: largest logit and logarithm of the sum, for gather_logprobs_torch
};

struct GatherLogprobsArgs {
  DType dtype;
  const void* logits;   // as above
  const float* totals;  // as above
  int64_t columns;
  int64_t stride;
  const int32_t* rows;  // [count]
  const int32_t* ids;   // [count], inside the columns
  float* out;           // [count]: logprob of id ids[i] in row rows[i]
  int64_t count;
};

void top_logprobs_torch(const DeviceOperatorContext& context, const TopLogprobsArgs& args);
void gather_logprobs_torch(const DeviceOperatorContext& context, const GatherLogprobsArgs& args);

}  // namespace qf::cuda
