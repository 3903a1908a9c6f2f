// The types that callers of the kernels layer use.
#pragma once

#include <cstdint>

#include "base/thread_pool.h"
#include "kernels/plan.h"
#include "numerics/isa.h"

namespace qf {

/// What a plan needs to know of a GPU.
struct DeviceNumbers {
  MatrixUnit fp16;      // fp16 in, fp32 out
  MatrixUnit bf16;      // bf16 in, fp32 out
  MatrixUnit fp16_out;  // fp16 in, fp16 out
  int sm_count;
  int shared_memory_per_block;  // bytes, the opt-in limit
};

struct Problem {
  int64_t m, n, k;
  int64_t group;  // k rows per scale row; -1: one group over all of K
  Format format;  // of activations and output
};

/// Options of all kernels; each kernel's line in kernels.def names the ones it reads.
struct KernelOptions {
  bool fp32_reduce = true;  // marlin: partials across blocks stay fp32
  bool symmetric = false;   // machete: no zero points (z = 8 folded into the conversion)
  bool dense = false;       // weights are stored as numbers, not as codes
  bool bias = false;
  bool offsets = false;      // fp32: the checkpoint stores float offsets, weight = (q - z) * s + offset
  int split = 1;             // cublas, awq from 256 rows, hgemm: parts of K; 0: the rule or recorded table
  bool transposed = false;   // cublas: weights lie as [N, K] (a linear layer) instead of [K, N]
  int inner_k_tiles = 8;     // tinygemm: tiles of 16 k that lie together in the packed weights
  int activation_group = 0;  // openvino: int8 activations in groups of this many k; 0: activations as they are
};

/// Arguments of one call. Bits of activations and output in the plan's formats.
struct GemmArgs {
  const void* activations;  // [m][lda]
  int64_t lda;
  const void* bias;  // [n], format of the output; null where the plan has none
  void* out;         // [row_count][ldo]
  int64_t ldo;
  /// A part of the call's rows, computed as in the whole call: its plan is for all m.
  int64_t first_row = 0;
  int64_t row_count = -1;  // -1: up to the last row
};

struct PanelSpans;  // kernels/emulate/half_window.h

/// Whether bf16 numbers may go through fp16's range (kernels/emulate/half_window.h); no bit depends on it.
enum class HalfWindow : uint8_t {
  where_cheap,  // with `spans`, or with many rows
  always,
  never,
};

/// How to run, not what to compute, except that `seed` picks the order of racing adds (`deterministic`: ascending).
struct ExecutorContext {
  Isa isa;
  ThreadPool* pool;
  uint64_t seed;
  bool deterministic;
  PanelSpans* spans = nullptr;  // kept beside the weight from call to call
  HalfWindow window = HalfWindow::where_cheap;
};

}  // namespace qf
