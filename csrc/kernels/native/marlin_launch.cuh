// The kernel and its launch. Included by marlin_fp16.cu and marlin_bf16.cu: one file per format, compiled side by side.
#pragma once

#include "base/cuda/check.h"
#include "base/error.h"
#include "kernels/native/marlin_reduce.cuh"

namespace qf::cuda {

template <class Number, int Rows, int Strips, int Chains, bool Zeros>
__global__ void __launch_bounds__(marlin_threads(Rows, Strips), 1)
    marlin_kernel(const __grid_constant__ MarlinArgs args) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  namespace cg = cooperative_groups;
  extern __shared__ __align__(128) char shared[];
  __shared__ CopyBarrier full[kMarlinStages];
  __shared__ int slices[kMarlinStrips];  // of each strip
  const MarlinShape& shape = args.shape;
  const BlockShare share(args);
  const Pipeline pipeline(args, share, shared, full);
  const int stages = pipeline.stages(), ahead = min(shape.stages - 1, stages);

  if (threadIdx.x == 0) {
    for (int i = 0; i < shape.stages; ++i) full[i].init(static_cast<int>(blockDim.x) + 1);
    publish_barriers();
  }
  __syncthreads();
  if (threadIdx.x < 32) {
    for (int i = 0; i < ahead; ++i) pipeline.fetch_weights(i, i);
  }
  const int leaf_rows = share.rows, pitch = shape.group_strips * kStripColumns + 4;
  float* const mine = args.leaves == nullptr
                          ? reinterpret_cast<float*>(shared + shape.shared_bytes) - shape.leaf_floats
                          : args.leaves + (static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x) * shape.leaf_floats;
  const LeafTable leaves{mine, leaf_rows, pitch, Chains > 1 ? 1 : share.classes};
  WarpWalk<Number, Rows, Strips, Chains, Zeros> walk(args, share, leaves);
  walk.tell_slices(slices);

  wait_for_earlier_kernels();
  for (int i = 0; i < ahead; ++i) pipeline.fetch_activations(i, i);
  int slot = 0, parity = 0, free_slot = shape.stages - 1;
  for (int i = 0; i < stages; ++i) {
    full[slot].wait(static_cast<uint32_t>(parity));
    __syncthreads();  // nobody reads the slot of stage i - 1 any more
    if (const int next = i + shape.stages - 1; next < stages) {
      if (threadIdx.x < 32) pipeline.fetch_weights(next, free_slot);
      pipeline.fetch_activations(next, free_slot);
    } else if (threadIdx.x == 0) {
      let_next_kernel_start();
    }
    const int tile = i * pipeline.stage_tiles();
    walk.walk(pipeline, slot, tile, min(tile + pipeline.stage_tiles(), args.k / share.tile_k));
    free_slot = slot;
    if (++slot == shape.stages) slot = 0, parity ^= 1;
  }
  if (shape.cluster > 1) {
    cg::this_cluster().sync();
  } else {
    __syncthreads();
  }
  reduce_and_store(args, share, cluster_leaves(args, share, leaves), slices);
  if (shape.cluster > 1) cg::this_cluster().sync();  // shared memory stays until its last reader is done
#endif
}

/// Calls body(kernel) with the instance of a shape.
template <class Number, bool Zeros, class Body>
void with_kernel(const MarlinShape& shape, Body body) {
  switch (shape.row_tiles * 100 + shape.strip_tiles * 10 + shape.chains) {
    case 111: return body(&marlin_kernel<Number, 1, 1, 1, Zeros>);
    case 114: return body(&marlin_kernel<Number, 1, 1, 4, Zeros>);
    case 211: return body(&marlin_kernel<Number, 2, 1, 1, Zeros>);
    case 214: return body(&marlin_kernel<Number, 2, 1, 4, Zeros>);
    case 411: return body(&marlin_kernel<Number, 4, 1, 1, Zeros>);
    case 412: return body(&marlin_kernel<Number, 4, 1, 2, Zeros>);
    case 421: return body(&marlin_kernel<Number, 4, 2, 1, Zeros>);
    case 422: return body(&marlin_kernel<Number, 4, 2, 2, Zeros>);
    default:
      throw Error("marlin: no kernel of " + std::to_string(shape.row_tiles) + " row tiles, " +
                  std::to_string(shape.strip_tiles) + " strips, " + std::to_string(shape.chains) + " chains");
  }
}

template <class Number>
void prepare(const MarlinShape& shape) {
  const auto allow = [&](auto* kernel) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shape.shared_bytes),
          "shared memory of marlin");
  };
  with_kernel<Number, false>(shape, allow);
  with_kernel<Number, true>(shape, allow);
}

template <class Number>
void launch(const MarlinArgs& args, int row_blocks, cudaStream_t stream) {
  cudaLaunchAttribute attributes[2]{};
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim = {static_cast<unsigned>(args.shape.cluster), 1, 1};
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[1].val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = {static_cast<unsigned>(args.shape.groups * args.shape.cluster), static_cast<unsigned>(row_blocks), 1};
  config.blockDim = {static_cast<unsigned>(args.shape.threads), 1, 1};
  config.dynamicSmemBytes = static_cast<size_t>(args.shape.shared_bytes);
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = 2;
  const auto start = [&](auto* kernel) { check(cudaLaunchKernelEx(&config, kernel, args), "marlin"); };
  args.number_units > kScaleUnits ? with_kernel<Number, true>(args.shape, start)
                                  : with_kernel<Number, false>(args.shape, start);
}

}  // namespace qf::cuda
