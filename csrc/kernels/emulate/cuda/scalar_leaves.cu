// Leaves without a matrix unit: fp32 FMA chains, exllama's fp16 FMA chains, int8 sums. A thread per column, a few rows
// each.
#include <cuda_fp16.h>

#include "base/cuda/check.h"
#include "kernels/emulate/cuda/leaf_job.cuh"
#include "kernels/emulate/cuda/leaf_kernels.h"
#include "kernels/emulate/cuda/narrow.cuh"

namespace qf::cuda {
namespace {

constexpr int kColumns = 64, kRows = 4;

struct ScalarArgs {
  LeafTables tables;
  StepRule step;
  const float *weight, *activations, *row_scale;
  int64_t weight_ld, activations_ld, k, first_row;
  const uint16_t* scales;  // [panel][group][16]
  Format scale_format;
  int64_t group, groups, activation_group;
};

__device__ float group_scale(const ScalarArgs& a, int column, int64_t k) {
  const int64_t at = (column / kPanelWidth * a.groups + k / a.group) * kPanelWidth + column % kPanelWidth;
  return widened(a.scale_format, a.scales[at]);
}

/// Weights, activations and sums are fp16 numbers; one rounding per FMA.
__device__ float half_fma(float a, float w, float c) {
  return __half2float(__hfma(__float2half_rn(a), __float2half_rn(w), __float2half_rn(c)));
}

struct Lane {
  const ScalarArgs& args;
  int column;
  const float* x;  // this thread's row of activations
  float acc = 0.0f, sum = 0.0f;

  __device__ float weight(int64_t k) const { return k < args.k ? args.weight[k * args.weight_ld + column] : 0.0f; }

  __device__ void float_fma(int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end && k < args.k; ++k) acc = __fmaf_rn(x[k], weight(k), acc);
  }
  __device__ void half2_chain(int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; k += 8) {
      float even = 0.0f, odd = 0.0f;
      for (int j = 0; j < 8; j += 2) {
        even = half_fma(x[k + j], weight(k + j), even);
        odd = half_fma(x[k + j + 1], weight(k + j + 1), odd);
      }
      acc = __fmaf_rn(__fadd_rn(even, odd), group_scale(args, column, k), acc);
    }
  }
  __device__ void int32(int64_t row, int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end && k < args.k; ++k) {
      sum = __fmaf_rn(x[k], weight(k), sum);  // integers below 2^24
      if ((k + 1) % args.activation_group != 0) continue;
      const float both = __fmul_rn(args.row_scale[row * (args.k / args.activation_group) + k / args.activation_group],
                                   group_scale(args, column, k));
      acc = __fmaf_rn(sum, both, acc);
      sum = 0.0f;
    }
  }
};

__global__ void scalar_leaf_kernel(const ScalarArgs args) {
  const LeafJob job = find_job(args.tables, blockIdx.x);
  const int column = job.column + threadIdx.x % kColumns, row = job.row + threadIdx.x / kColumns;
  if (column >= job.column_end || row >= job.row_end) return;
  const int64_t x_row = row - args.first_row;
  Lane lane{args, column, args.activations + x_row * args.activations_ld};
  for (const Chunk* chunk = job.chunk; chunk < job.chunk_end; ++chunk) {
    const int64_t begin = chunk->start, end = begin + chunk->length;
    switch (args.step) {
      case StepRule::half2_chain: lane.half2_chain(begin, end); break;
      case StepRule::int32: lane.int32(x_row, begin, end); break;
      default: lane.float_fma(begin, end);
    }
  }
  job.store(row, column, lane.acc);
}

}  // namespace

TileShape scalar_tile() { return {kRows, kColumns}; }

void run_scalar_leaves(const LeafCall& call, const DeviceWeight& scales, const ScalarOperand& weight,
                       const ScalarOperand& activations) {
  const Plan& plan = call.plan->plan();
  const ScalarArgs args{.tables = leaf_tables(*call.plan, *call.pass, call.partials),
                        .step = plan.step,
                        .weight = weight.value.data(),
                        .activations = activations.value.data(),
                        .row_scale = activations.scale.data(),
                        .weight_ld = weight.ld,
                        .activations_ld = activations.ld,
                        .k = plan.k,
                        .first_row = call.first_row,
                        .scales = scales.scales.data(),
                        .scale_format = scales.format,
                        .group = scales.is_dense() ? plan.k : scales.group,
                        .groups = scales.is_dense() ? 1 : scales.groups(),
                        .activation_group = plan.activation_group};
  scalar_leaf_kernel<<<static_cast<unsigned>(call.pass->blocks), kColumns * kRows, 0,
                       static_cast<cudaStream_t>(call.stream)>>>(args);
  check_launch("scalar_leaves");
}

}  // namespace qf::cuda
