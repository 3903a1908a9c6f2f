// What a launch of the Marlin-family kernel is told, and the launch of one number format.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include "kernels/native/marlin_schedule.h"

namespace qf::cuda {

struct MarlinArgs {
  const uint32_t* channel_scales;  // row of `numbers` (marlin_layout.h), where weights enter as integers
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
  int strips;
  int units, group_units;  // units of strip_tiles strips: in all, and of the smallest group
  int k_tiles, tile_k;
  int stage_tiles;   // k-tiles per stage
  int stage_count;   // stages of K
  int stage_groups;  // groups from stage to stage; 0: one group
  int classes;       // warp rows of a block
  int group_shift;   // log2 of the group; 31: one group
  int number_units;  // 16-byte units per strip and group: 2, or 3 with zero points
};

/// The operands as the copy engine sees them, innermost first; a box is a stage.
struct MarlinMaps {
  CUtensorMap activations;  // 32 k, row, warp row, k-tile
  CUtensorMap codes;        // 64 words, strip, warp row, k-tile
  CUtensorMap numbers;      // words, strip, group
};

struct MarlinLaunch {
  MarlinArgs args;
  MarlinMaps maps;
  int row_blocks;
  cudaStream_t stream;
};

void prepare_marlin_fp16(const MarlinShape& shape, int shared_bytes);
void prepare_marlin_bf16(const MarlinShape& shape, int shared_bytes);
void launch_marlin_fp16(const MarlinLaunch& launch);
void launch_marlin_bf16(const MarlinLaunch& launch);

}  // namespace qf::cuda
