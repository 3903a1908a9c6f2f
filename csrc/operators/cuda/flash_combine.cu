// The parts of split keys become one output: shares from the parts' logarithms, then a sum over the parts, ascending.
#include "base/cuda/overlap.cuh"
#include "operators/cuda/block_sums.cuh"
#include "operators/cuda/flash_kernels.h"
#include "operators/cuda/flash_operand.cuh"
#include "operators/cuda/flash_sfu.cuh"

namespace qf::cuda {
namespace {

constexpr int kMostParts = 128;

/// A block per packed row and kv head, a thread per element.
template <class Format>
__global__ void combine_kernel(const __grid_constant__ FlashJob job, int sequence_index) {
  __shared__ float logs[kMostParts], shares[kMostParts];
  __shared__ float normaliser;
  let_next_kernel_start();
  wait_for_earlier_kernels();
  const FlashSequence sequence = job.sequence(sequence_index);
  const int row = blockIdx.x, kv_head = blockIdx.y, parts = sequence.parts, head_size = blockDim.x;
  const int64_t first = partial_row(sequence, job.group, kv_head, row, 0);
  for (int part = threadIdx.x; part < parts; part += blockDim.x) logs[part] = job.log_sums[first + part];
  __syncthreads();
  const FlashSfu sfu{job.sfu, job.own_unit};
  float largest = -INFINITY;
  for (int part = 0; part < parts; ++part) largest = fmaxf(largest, logs[part]);
  for (int part = threadIdx.x; part < parts; part += blockDim.x) {
    shares[part] = flash_exp(sfu, __fsub_rn(logs[part], largest));
  }
  __syncthreads();
  if (threadIdx.x < kWarp) {  // butterfly_sum
    const int lanes = flash_merge_lanes(head_size);
    float sum = 0.0f;
    if (static_cast<int>(threadIdx.x) < lanes) {
      for (int part = threadIdx.x; part < parts; part += lanes) sum = __fadd_rn(sum, shares[part]);
    }
    for (int offset = lanes / 2; offset > 0; offset /= 2) {
      sum = __fadd_rn(sum, __shfl_xor_sync(kFullWarp, sum, offset));
    }
    if (threadIdx.x == 0) normaliser = flash_normaliser(job.merge, sfu, largest, sum);
  }
  __syncthreads();
  for (int part = threadIdx.x; part < parts; part += blockDim.x) {
    shares[part] = flash_share(job.merge, sfu, logs[part], shares[part], normaliser);
  }
  __syncthreads();
  float sum = 0.0f;
  for (int part = 0; part < parts; ++part) {
    if (!(shares[part] > 0.0f)) continue;
    const float value = job.partials[(first + part) * head_size + threadIdx.x];
    sum = flush_subnormal(fmaf(shares[part], flush_subnormal(value), sum));
  }
  const int head = kv_head * job.group + row % job.group;
  sequence.out[row / job.group * job.out_stride + head * head_size + threadIdx.x] =
      static_cast<uint16_t>(narrow_bits<Format>(sum));
}

}  // namespace

void run_flash_combine(const FlashJob& job, bool bf16, int head_size, int sequence, int64_t rows, void* stream) {
  const dim3 grid(static_cast<unsigned>(rows), static_cast<unsigned>(job.kv_heads));
  const LaunchShape shape{grid, dim3(static_cast<unsigned>(head_size)), 0, job.overlapped};
  const char* name = "merge of attention's parts";
  if (bf16) {
    launch(combine_kernel<Bf16>, shape, stream, name, job, sequence);
  } else {
    launch(combine_kernel<Fp16>, shape, stream, name, job, sequence);
  }
}

}  // namespace qf::cuda
