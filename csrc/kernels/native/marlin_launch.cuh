// The kernel and its launch. Included by marlin_fp16.cu and marlin_bf16.cu: one file per format, compiled side by side.
#pragma once

#include "base/cuda/check.h"
#include "base/error.h"
#include "kernels/native/marlin_reduce.cuh"

namespace qf::cuda {

template <class Number, int Rows, int Strips, bool Zeros>
__global__ void __launch_bounds__(marlin_threads(Rows, Strips), 1)
    marlin_kernel(const __grid_constant__ MarlinArgs args, const __grid_constant__ MarlinMaps maps) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  extern __shared__ char dynamic[];
  __shared__ uint64_t barriers[2 * kMarlinStages];
  __shared__ int slices[kMarlinStrips];  // of each strip
  char* const shared = dynamic + ((1024 - shared_address(dynamic) % 1024) & 1023);
  const MarlinShape& shape = args.shape;
  const Stages stages(args, shared_address(shared), shared_address(barriers));
  const int walkers = static_cast<int>(blockDim.x) / 32 - kFetchingWarps;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  if (threadIdx.x == 0) {
    for (int i = 0; i < shape.stages; ++i) {
      stages.full(i).init(kFetchingWarps);
      stages.empty(i).init(walkers);
    }
    publish_barriers();
  }
  const BlockShare share(args);
  __syncthreads();
  float* const mine =
      args.leaves == nullptr
          ? reinterpret_cast<float*>(shared + shape.stages * args.stage.bytes)
          : args.leaves + (static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x) * shape.leaf_floats;
  const LeafTable leaves{mine, share.rows, shape.group_strips * kStripColumns + 4, shape.leaf_slots};
  if (warp == walkers) {
    if (lane == 0) fetch_weights(args, maps, stages, share);
  } else if (warp > walkers) {
    wait_for_earlier_kernels();
    if (lane == 0) fetch_activations(args, maps, stages, share);
  } else {
    WarpWalk<Number, Rows, Strips, Zeros> walk(args, share, leaves);
    walk.tell_slices(slices);
    wait_for_earlier_kernels();  // this one writes partial sums and outputs
    walk.run(args, stages);
  }
  __syncwarp();
  // Partial sums have memory of their own, which no copy of the engine writes. Every store to them comes before every
  // load of the reduction: a walker stores, then arrives (with release in a cluster), and nobody passes before all
  // threads arrived. Copies are over as well: walkers waited for every stage. The fetching warps arrive long before and
  // read nothing afterwards: the barrier orders such reads too, but racecheck reported reads where theirs were.
  if (shape.cluster > 1) {
    meet_cluster();
  } else {
    __syncthreads();
  }
  if (warp < walkers) reduce_and_store(args, share, cluster_leaves(args, share, leaves), slices);
  if (shape.cluster > 1) leave_cluster();  // shared memory stays until its last reader is done
#endif
}

/// Calls body(kernel) with the instance of a shape.
template <class Number, bool Zeros, class Body>
void with_kernel(const MarlinShape& shape, Body body) {
  switch (shape.row_tiles * 10 + shape.strip_tiles) {
    case 11: return body(&marlin_kernel<Number, 1, 1, Zeros>);
    case 12: return body(&marlin_kernel<Number, 1, 2, Zeros>);
    case 21: return body(&marlin_kernel<Number, 2, 1, Zeros>);
    case 22: return body(&marlin_kernel<Number, 2, 2, Zeros>);
    case 41: return body(&marlin_kernel<Number, 4, 1, Zeros>);
    case 42: return body(&marlin_kernel<Number, 4, 2, Zeros>);
    case 81: return body(&marlin_kernel<Number, 8, 1, Zeros>);
    case 82: return body(&marlin_kernel<Number, 8, 2, Zeros>);
    default:
      throw Error("marlin: no kernel of " + std::to_string(shape.row_tiles) + " row tiles and " +
                  std::to_string(shape.strip_tiles) + " strips");
  }
}

/// A kernel serves launches of several sizes: it is allowed all of a block's shared memory.
template <class Number>
void prepare(const MarlinShape& shape, int shared_bytes) {
  const auto allow = [&](auto* kernel) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes),
          "shared memory of marlin");
  };
  with_kernel<Number, false>(shape, allow);
  with_kernel<Number, true>(shape, allow);
}

template <class Number>
void launch(const MarlinLaunch& launch) {
  const MarlinArgs& args = launch.args;
  cudaLaunchAttribute attributes[2]{};
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim = {static_cast<unsigned>(args.shape.cluster), 1, 1};
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[1].val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = {static_cast<unsigned>(args.shape.groups * args.shape.cluster),
                    static_cast<unsigned>(launch.row_blocks), 1};
  config.blockDim = {static_cast<unsigned>(args.shape.threads), 1, 1};
  config.dynamicSmemBytes = static_cast<size_t>(args.shape.shared_bytes);
  config.stream = launch.stream;
  config.attrs = attributes;
  config.numAttrs = 2;
  const auto start = [&](auto* kernel) { check(cudaLaunchKernelEx(&config, kernel, args, launch.maps), "marlin"); };
  args.number_units > kScaleUnits ? with_kernel<Number, true>(args.shape, start)
                                  : with_kernel<Number, false>(args.shape, start);
}

}  // namespace qf::cuda
