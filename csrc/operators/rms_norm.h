// RMS norm, alone or behind the addition of the residual. Also the per-head norm of queries and keys (Qwen3): there a
// row is one head of one token, and rows of a token are `inner_rows` apart by `inner_stride`.
#pragma once

#include "operators/context.h"

namespace qf {

struct RmsNormArgs {
  DType dtype;
  const void* x;       // [rows / inner_rows][inner_rows][columns], strides below; may be out
  const void* weight;  // [columns]
  void* out;           // the same strides as x
  int64_t rows;
  int64_t columns;
  int64_t stride;            // elements from token to token
  int64_t inner_rows = 1;    // rows of one token
  int64_t inner_stride = 0;  // elements from row to row of one token
  float epsilon;
};

struct FusedAddRmsNormArgs {
  DType dtype;
  const void* x;  // [rows][columns], contiguous, like all below
  const void* residual;
  const void* weight;  // [columns]
  void* out;           // may be x
  void* residual_out;  // may be residual
  int64_t rows;
  int64_t columns;
  float epsilon;
};

void rms_norm_vllm(const OperatorContext& context, const RmsNormArgs& args);
void rms_norm_vllm_notes(const RmsNormArgs& args, Notes& notes);
void rms_norm_fp32(const OperatorContext& context, const RmsNormArgs& args);

void fused_add_rms_norm_vllm(const OperatorContext& context, const FusedAddRmsNormArgs& args);
void fused_add_rms_norm_vllm_notes(const FusedAddRmsNormArgs& args, Notes& notes);
void fused_add_rms_norm_fp32(const OperatorContext& context, const FusedAddRmsNormArgs& args);

}  // namespace qf
