#include "kernels/emulate/cuda/combine.h"

#include "base/cuda/check.h"
#include "kernels/emulate/cuda/epilogue.cuh"
#include "kernels/emulate/race_order.h"

namespace qf::cuda {
namespace {

constexpr int kColumns = 64;      // a block takes 64 columns of one row: a unit of the race, both parities
constexpr int kRaceLeaves = 512;  // of shared memory's order table

struct CombineArgs {
  const DeviceRegion* regions;
  const SlotAdd* adds;
  float* partials;
  Epilogue epilogue;
  const uint16_t* channel_scale;  // [n], one group: panels lie side by side
  Format scale_format;
  const void* bias;
  void* out;  // its row 0 is first_row of the call
  int64_t ldo, first_row;
  uint64_t seed;
  bool deterministic;
};

struct Cell {
  const DeviceRegion& region;
  float* first;    // partial of the first leaf
  int64_t stride;  // from leaf to leaf

  __device__ float leaf(int i) const { return narrowed(static_cast<Narrow>(region.leaf_narrow), first[i * stride]); }
};

__device__ float tree_sum(const CombineArgs& args, const Cell& cell) {
  if (cell.region.leaf_narrow != static_cast<int>(Narrow::none)) {
    for (int i = 0; i < cell.region.leaf_count; ++i) cell.first[i * cell.stride] = cell.leaf(i);
  }
  for (int i = 0; i < cell.region.add_count; ++i) {
    const SlotAdd add = args.adds[cell.region.add_begin + i];
    float* left = cell.first + add.left * cell.stride;
    *left = narrowed(static_cast<Narrow>(add.narrow), __fadd_rn(*left, cell.first[add.right * cell.stride]));
  }
  return cell.first[cell.region.root * cell.stride];
}

__device__ float race_sum(const Cell& cell, const int16_t* order) {
  float sum = 0.0f;
  for (int i = 0; i < cell.region.leaf_count; ++i) {
    sum = narrowed(static_cast<Narrow>(cell.region.race_narrow), __fadd_rn(sum, cell.leaf(order[i])));
  }
  return sum;
}

__device__ float output(const CombineArgs& args, int column, float sum) {
  const Epilogue& rule = args.epilogue;
  const float scale = rule.channel_scale ? widened(args.scale_format, args.channel_scale[column]) : 1.0f;
  const float bias = rule.bias == BiasRule::none ? 0.0f : load_number(rule.output, args.bias, column);
  return finished(rule, sum, scale, bias);
}

__global__ void combine_kernel(const CombineArgs args) {
  __shared__ int16_t order[2][kRaceLeaves];
  const DeviceRegion& region = args.regions[blockIdx.z];
  const int columns = region.column_end - region.column_begin, rows = region.row_end - region.row_begin;
  // columns are cut at multiples of 16, units of the race at multiples of 64
  const int block = region.column_begin / kColumns + blockIdx.x;
  const int column = block * kColumns + threadIdx.x;
  const bool mine = column >= region.column_begin && column < region.column_end;
  for (int row = region.row_begin + blockIdx.y; row < region.row_end; row += gridDim.y) {
    if (region.racing) {
      __syncthreads();
      if (threadIdx.x < 2) {
        int16_t* mine_order = order[threadIdx.x];
        if (args.deterministic) {
          for (int i = 0; i < region.leaf_count; ++i) mine_order[i] = static_cast<int16_t>(i);
        } else {
          race_order(args.seed, row, block, static_cast<int>(threadIdx.x), mine_order, region.leaf_count);
        }
      }
      __syncthreads();
    }
    if (!mine) continue;
    const int64_t at = static_cast<int64_t>(row - region.row_begin) * columns + column - region.column_begin;
    const Cell cell{region, args.partials + region.partial_begin + at, static_cast<int64_t>(rows) * columns};
    const float sum = region.racing ? race_sum(cell, order[column >> 1 & 1]) : tree_sum(args, cell);
    store_number(args.epilogue.output, args.out, (row - args.first_row) * args.ldo + column,
                 output(args, column, sum));
  }
}

}  // namespace

void combine(const CombineCall& call, const GemmArgs& args) {
  const Plan& plan = call.plan->plan();
  int64_t columns = 0, rows = 0;
  for (const Region& region : plan.regions) {
    columns = std::max(columns, region.column_end - region.column_begin);
    rows = std::max(rows, region.row_end - region.row_begin);
  }
  for (const Tree& tree : plan.trees) {
    require(!tree.racing || tree.leaves.size() <= kRaceLeaves, plan.kernel, ": ", tree.leaves.size(),
            " racing blocks; the CUDA emulator takes ", kRaceLeaves);
  }
  rows = std::min(rows, call.pass->row_end - call.pass->row_begin);
  const CombineArgs all{.regions = call.pass->regions.data(),
                        .adds = call.plan->adds(),
                        .partials = call.partials,
                        .epilogue = plan.epilogue,
                        .channel_scale = call.weight->scales.data(),
                        .scale_format = call.weight->format,
                        .bias = args.bias,
                        .out = args.out,
                        .ldo = args.ldo,
                        .first_row = args.first_row,
                        .seed = call.seed,
                        .deterministic = call.deterministic};
  const dim3 grid(static_cast<unsigned>(columns / kColumns + 2), static_cast<unsigned>(std::min<int64_t>(rows, 4096)),
                  static_cast<unsigned>(call.pass->region_count));
  combine_kernel<<<grid, kColumns, 0, static_cast<cudaStream_t>(call.stream)>>>(all);
  check_launch("combine");
}

}  // namespace qf::cuda
