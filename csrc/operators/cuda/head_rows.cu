#include "operators/cuda/head_rows.h"

#include "base/cuda/overlap.cuh"
#include "numerics/cuda_math.h"
#include "operators/cuda/block_sums.cuh"
#include "operators/cuda/fault_note.cuh"
#include "operators/cuda/sfu_choice.cuh"
#include "operators/cuda/stored.cuh"
#include "operators/elements.h"

namespace qf::cuda {
namespace {

constexpr int kThreads = 128, kVector = 8;

/// kLanes lanes of a warp share a head, 8 elements each: the threads of rms_norm_vllm for such a row.
template <class Stored, int kLanes, class Sfu>
struct HeadLane {
  int lane;
  float x[kVector];

  __device__ void norm(const uint16_t* weight, float epsilon, const Sfu& sfu) {
    float sum = 0.0f;
#pragma unroll
    for (float v : x) sum = fmaf(v, v, sum);
    const float total = __shfl_sync(kFullWarp, warp_sum_up(sum, kLanes), 0, kLanes);
    const float scale = cuda_rsqrtf(sfu, __fadd_rn(__fdiv_rn(total, static_cast<float>(kLanes * kVector)), epsilon));
    float w[kVector];
    load<Stored>(weight + lane * kVector, true, w);
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      x[i] = Stored::widen(Stored::narrow(__fmul_rn(__fmul_rn(x[i], scale), w[i])));
    }
  }
  __device__ void rotate(const uint16_t* turns) {
    constexpr int kHalf = kLanes / 2;
    float cosine[kVector], sine[kVector];
    load<Stored>(turns + lane % kHalf * kVector, true, cosine);
    load<Stored>(turns + (lane % kHalf + kHalf) * kVector, true, sine);
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      const float other = __shfl_xor_sync(kFullWarp, x[i], kHalf);
      x[i] =
          lane < kHalf ? rotate_first(x[i], other, cosine[i], sine[i]) : rotate_second(other, x[i], cosine[i], sine[i]);
    }
  }
};

template <class Stored, int kLanes, class Sfu>
__global__ void __launch_bounds__(kThreads)
    head_rows_kernel(const __grid_constant__ HeadRowsArgs args, Sfu sfu, unsigned long long* fault) {
  constexpr int kHead = kLanes * kVector;
  const int heads = static_cast<int>(args.heads), kv_heads = static_cast<int>(args.kv_heads);
  const int all = heads + 2 * kv_heads, lane = static_cast<int>(threadIdx.x) % kLanes;
  const int head = static_cast<int>(blockIdx.y) * (kThreads / kLanes) + static_cast<int>(threadIdx.x) / kLanes;
  const int64_t row = blockIdx.x;
  let_next_kernel_start();
  wait_for_earlier_kernels();
  const int64_t position = args.positions[row];
  const bool inside = position >= 0 && position < args.rotary_rows, real = head < all;
  if (!inside && head == 0 && lane == 0) note_fault(fault, row, position);
  uint16_t* at = static_cast<uint16_t*>(args.qkv) + (row * all + (real ? head : 0)) * kHead + lane * kVector;
  HeadLane<Stored, kLanes, Sfu> mine{lane, {}};
  load<Stored>(at, true, mine.x);
  const HeadLane<Stored, kLanes, Sfu> before = mine;
  // whole warps shuffle together, whatever their heads are
  const bool value = head >= heads + kv_heads, key = head >= heads && !value;
  if (args.q_norm != nullptr) {
    mine.norm(static_cast<const uint16_t*>(key ? args.k_norm : args.q_norm), args.epsilon, sfu);
  }
  const int64_t turn = inside ? position : 0;
  const HeadLane<Stored, kLanes, Sfu> normed = mine;
  mine.rotate(static_cast<const uint16_t*>(args.rotary_cache) + turn * kHead);
  if (!real) return;
  const HeadLane<Stored, kLanes, Sfu>& out = value ? before : inside ? mine : normed;
  if (!value) store<Stored>(at, true, out.x);
  if (head < heads || !inside) return;
  const CacheTarget& target = args.targets[args.one_target ? 0 : row];
  auto* to = static_cast<uint16_t*>(value ? target.values : target.keys);
  store<Stored>(to + (position * kv_heads + (head - heads) % kv_heads) * kHead + lane * kVector, true, out.x);
}

}  // namespace

bool takes_head_rows(const HeadRowsArgs& args) {
  bool aligned = true;
  const int count = args.one_target ? 1 : static_cast<int>(args.rows);
  if (args.dtype == DType::fp32 || count > kCacheTargets) return false;
  for (const void* pointer : {static_cast<const void*>(args.qkv), args.q_norm, args.k_norm, args.rotary_cache}) {
    aligned = aligned && aligned_for(pointer, 0, 16);
  }
  for (int i = 0; i < count; ++i) {
    aligned = aligned && aligned_for(args.targets[i].keys, 0, 16) && aligned_for(args.targets[i].values, 0, 16);
  }
  return aligned && (args.head_size == 64 || args.head_size == 128) && args.rows > 0;
}

void head_rows(const DeviceOperatorContext& context, const HeadRowsArgs& args) {
  const auto run = [&](auto stored, auto lanes) {
    constexpr int kLanes = decltype(lanes)::value, kHeads = kThreads / kLanes;
    const int64_t all = args.heads + 2 * args.kv_heads;
    const dim3 grid(static_cast<unsigned>(args.rows), static_cast<unsigned>((all + kHeads - 1) / kHeads));
    with_sfu(*context.sfu, [&](auto sfu) {
      launch(head_rows_kernel<decltype(stored), kLanes, decltype(sfu)>, {grid, dim3(kThreads), 0, context.overlapped},
             context.stream, "head_rows", args, sfu, context.faults->slot(Fault::position));
    });
  };
  with_half_storage(args.dtype, "head_rows", [&](auto stored) {
    if (args.head_size == 64) return run(stored, std::integral_constant<int, 8>{});
    run(stored, std::integral_constant<int, 16>{});
  });
}

}  // namespace qf::cuda
