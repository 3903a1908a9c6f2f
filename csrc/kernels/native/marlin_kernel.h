// What a launch of the Marlin-family kernel is told, and the launch of one number format.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include "kernels/native/marlin_schedule.h"

namespace qf::cuda {

struct MarlinArgs {
  const uint4* codes;    // marlin_layout.h
  const uint4* numbers;  // marlin_layout.h
  const void* bias;
  void* out;
  float* leaves;  // partial sums in device memory, or null: in shared memory
  const RowBlock* row_blocks;
  const int32_t* cut_begin;  // of the launch's first row block
  const int32_t* cuts;
  int64_t ldo;
  Epilogue epilogue;
  Narrow hop;
  MarlinShape shape;
  MarlinStage stage;
  int k, strips;
  int units, group_units;  // units of strip_tiles strips: in all, and of the smallest group
  int stage_tiles;         // k-tiles per stage
  int stage_count;         // stages of K
  int warp_rows;           // of the plan
  int class_shift;         // log2 of a block's warp rows
  int group_shift;         // log2 of the group; 31: one group
  int number_units;        // 16-byte units per strip and group: 2, or 3 with zero points
};

/// A launch and the activations as the copy engine sees them: [rows][k], boxes of one chunk's 32 k.
struct MarlinLaunch {
  MarlinArgs args;
  CUtensorMap activations;
  int row_blocks;
  cudaStream_t stream;
};

void prepare_marlin_fp16(const MarlinShape& shape, int shared_bytes);
void prepare_marlin_bf16(const MarlinShape& shape, int shared_bytes);
void launch_marlin_fp16(const MarlinLaunch& launch);
void launch_marlin_bf16(const MarlinLaunch& launch);

}  // namespace qf::cuda
