// What a launch of the kernel of pieces is told, and the launch of one kind of sums.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include "kernels/native/pieces_layout.h"
#include "kernels/native/pieces_plan.h"

namespace qf::cuda {

/// A stage in shared memory: 64 k of activations [row][128 bytes] as the copy engine swizzles them, codes
/// [strip][lane][4 words], numbers [strip][unit][8 words].
struct PiecesStage {
  int codes_at, numbers_at, bytes;
};

struct PiecesArgs {
  const PieceItem* items;
  const int32_t* first;  // of each block
  const uint32_t *codes, *numbers;
  const void* bias;
  void* out;
  int64_t ldo;
  uint32_t* partials;  // [slot][words of a tile]
  int* counters;
  Epilogue epilogue;
  RuleNumbers rule;
  int strips, group_tiles;  // padded strips; k-tiles of a group
  int number_words;         // of a strip and group
  int stages, ring_bytes;   // slots of the pipeline, bytes of all
  PiecesStage stage;
};

struct PiecesLaunch {
  PiecesArgs args;
  CUtensorMap activations;  // 64 k, row, k-tile
  PiecesShape shape;
  int blocks, shared_bytes;
  cudaStream_t stream;
};

void prepare_pieces_fp16(const PiecesShape& shape, int shared_bytes);
void prepare_pieces_bf16(const PiecesShape& shape, int shared_bytes);
void prepare_pieces_fp16_sums(const PiecesShape& shape, int shared_bytes);
void launch_pieces_fp16(const PiecesLaunch& launch);
void launch_pieces_bf16(const PiecesLaunch& launch);
void launch_pieces_fp16_sums(const PiecesLaunch& launch);

}  // namespace qf::cuda
