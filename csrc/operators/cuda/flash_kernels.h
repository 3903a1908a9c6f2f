// Kernels of flash attention, per format.
#pragma once

#include "numerics/cuda/scheme.h"
#include "operators/cuda/flash_job.h"

namespace qf::cuda {

/// Packed rows per thread block; few: for sequences with no more of them.
constexpr int kFewRows = 16, kManyRows = 64;

/// Runs items [0, items) of the job, each for every kv head. few_rows: the items' sequences have at most kFewRows.
void run_flash_fp16(const FlashJob& job, Scheme scheme, int head_size, bool few_rows, int64_t items, void* stream);
void run_flash_bf16(const FlashJob& job, Scheme scheme, int head_size, bool few_rows, int64_t items, void* stream);

/// Merges the parts of `rows` packed rows of a sequence of the job, for every kv head, into its outputs.
void run_flash_combine(const FlashJob& job, bool bf16, int head_size, int sequence, int64_t rows, void* stream);

}  // namespace qf::cuda
