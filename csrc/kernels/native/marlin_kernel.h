// What a launch of the Marlin-family kernel is told, and the launch of one number format.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/native/marlin_schedule.h"

namespace qf::cuda {

struct MarlinArgs {
  const uint4* codes;    // marlin_layout.h
  const uint4* numbers;  // marlin_layout.h
  const char* activations;
  const void* bias;
  void* out;
  float* leaves;  // partial sums in device memory, or null: in shared memory
  const RowBlock* row_blocks;
  const int32_t* cut_begin;  // of the launch's first row block
  const int32_t* cuts;
  int64_t activation_bytes;  // of a row
  int64_t ldo;
  Epilogue epilogue;
  Narrow hop;
  MarlinShape shape;
  int rows;  // of the largest row block
  int k, strips;
  int warp_rows;      // of the plan
  int group_shift;    // log2 of the group; 31: one group
  int number_units;   // 16-byte units per strip and group: 2, or 3 with zero points
  bool scaled_later;  // weights enter as integers
};

void prepare_marlin_fp16(const MarlinShape& shape);
void prepare_marlin_bf16(const MarlinShape& shape);
void launch_marlin_fp16(const MarlinArgs& args, int row_blocks, cudaStream_t stream);
void launch_marlin_bf16(const MarlinArgs& args, int row_blocks, cudaStream_t stream);

}  // namespace qf::cuda
