// Log-softmax over the vocabulary, and the largest entries of a row.
#pragma once

#include "operators/context.h"

namespace qf {

struct LogSoftmaxArgs {
  DType dtype;
  const void* logits;  // [rows][columns]
  float* out;          // [rows][columns]
  int64_t rows;
  int64_t columns;
  int64_t stride;  // elements between rows of logits
};

void log_softmax_torch(const OperatorContext& context, const LogSoftmaxArgs& args);
void log_softmax_torch_notes(const LogSoftmaxArgs& args, Notes& notes);
void log_softmax_fp32(const OperatorContext& context, const LogSoftmaxArgs& args);

}  // namespace qf
