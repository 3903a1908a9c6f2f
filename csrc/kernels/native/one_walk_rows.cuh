// One walk over K for up to 16 rows of activations: weights stream from memory once. A warp takes 16 columns of the
// output (rows of the weight) at a time, and brings them through a ring of its own in shared memory,
//
//   stage: [16 columns][64 k] 16-bit numbers, cells of 8 k swizzled: cell c of column r lies at c ^ (r & 7)
//
// so that warps never wait for each other. The ring runs on from one panel of 16 columns to the warp's next.
#pragma once

#include <algorithm>

#include "base/cuda/overlap.cuh"
#include "kernels/emulate/cuda/narrow.cuh"
#include "kernels/native/load.cuh"
#include "numerics/cuda/mma.cuh"

namespace qf::cuda {

struct OneWalkArgs {
  const uint16_t *activations, *weight;  // [m][lda], [n][ldw]
  const uint16_t* bias;                  // or null
  uint16_t* out;
  int64_t lda, ldw, ldo;
  int m, n, k;
  Format format;
  bool bias_before_rounding;
};

__device__ inline uint16_t finished(const OneWalkArgs& args, float value, int column) {
  if (args.bias != nullptr) {
    const float bias = widened(args.format, args.bias[column]);
    value = __fadd_rn(args.bias_before_rounding ? value : narrowed(narrow_for(args.format), value), bias);
  }
  return args.format == Format::bf16 ? bf16_bits(value) : half_bits(value);
}

constexpr int kPanel = 16, kStageK = 64, kStageSize = kPanel * kStageK * 2;
constexpr int kFewBytes = 226 << 10;  // of shared memory

/// Rows of activations in shared memory; the 8 more spread a step's eight rows over the banks.
__host__ __device__ inline int few_rows_pitch(int k) { return (k + 15) / 16 * 16 + 8; }
inline int few_rows_bytes(const OneWalkArgs& args) { return args.m * few_rows_pitch(args.k) * 2; }

/// With room for four stages of eight warps.
inline bool takes_few_rows(const OneWalkArgs& args) {
  return args.m <= 16 && few_rows_bytes(args) + 4 * 8 * kStageSize <= kFewBytes;
}

/// The stream of stages of one warp.
template <int kStages>
class PanelRing {
 public:
  __device__ PanelRing(const OneWalkArgs& args, char* ring, int first_panel, int step)
      : args_(args),
        ring_(ring),
        first_(first_panel),
        step_(step),
        per_panel_((args.k + kStageK - 1) / kStageK),
        row_(static_cast<int>(threadIdx.x) % 32 / 8),
        cell_(static_cast<int>(threadIdx.x) % 8) {}

  __device__ int per_panel() const { return per_panel_; }
  /// Queues the copy of stage `index` of the stream.
  __device__ void fill(int index, int count) const {
    if (index < count) {
      const int panel = first_ + index / per_panel_ * step_, k = index % per_panel_ * kStageK + cell_ * 8;
      char* stage = ring_ + index % kStages * kStageSize;
      const int bytes = k < args_.k ? 16 : 0;
#pragma unroll
      for (int i = 0; i < kPanel / 4; ++i) {
        const int row = row_ + 4 * i, column = min(panel * kPanel + row, args_.n - 1);
        copy_past_cache(stage + row * (kStageK * 2) + ((cell_ ^ (row & 7)) * 16),
                        args_.weight + column * args_.ldw + (bytes > 0 ? k : 0), bytes);
      }
    }
    asm volatile("cp.async.commit_group;");
  }
  /// Waits until stage `index` is there, and all lanes are done with the one before it.
  __device__ void wait() const {
    asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 2) : "memory");
    __syncwarp();
  }
  /// The left operand of 16 k.
  __device__ void load(int index, int step, uint32_t (&a)[4]) const {
    const int lane = static_cast<int>(threadIdx.x) % 32, row = lane % 8 + lane / 8 % 2 * 8;
    const int cell = step * 2 + lane / 16;
    const char* at = ring_ + index % kStages * kStageSize + row * (kStageK * 2) + ((cell ^ (row & 7)) * 16);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
                 : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(at)))
                 : "memory");
  }

 private:
  const OneWalkArgs& args_;
  char* ring_;
  int first_, step_, per_panel_, row_, cell_;
};

/// kTiles of 8 rows of activations.
template <class Number, int kTiles, int kStages>
__global__ void __launch_bounds__(256, 1) one_walk_few_rows(const __grid_constant__ OneWalkArgs args) {
  extern __shared__ __align__(1024) char shared[];
  const int warps = static_cast<int>(blockDim.x) / 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
  const int panels = (args.n + kPanel - 1) / kPanel, pitch = few_rows_pitch(args.k);
  const int first = static_cast<int>(blockIdx.x) * warps + warp, step = static_cast<int>(gridDim.x) * warps;
  const PanelRing<kStages> ring(args, shared + warp * kStages * kStageSize, first, step);
  const int mine = first < panels ? (panels - first + step - 1) / step : 0, count = mine * ring.per_panel();
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) ring.fill(i, count);

  auto* const rows = reinterpret_cast<uint16_t*>(shared + warps * kStages * kStageSize);
  wait_for_earlier_kernels();
  for (int i = static_cast<int>(threadIdx.x); i < args.m * (pitch / 8); i += static_cast<int>(blockDim.x)) {
    const int row = i / (pitch / 8), k = i % (pitch / 8) * 8;
    const uint4* from = reinterpret_cast<const uint4*>(args.activations + row * args.lda + k);
    *reinterpret_cast<uint4*>(rows + row * pitch + k) = k < args.k ? *from : uint4{};
  }
  __syncthreads();

  int index = 0;
  for (int i = 0; i < mine; ++i) {
    float sum[kTiles][4] = {};
    for (int k = 0; k < args.k; k += kStageK, ++index) {
      ring.wait();
      ring.fill(index + kStages - 1, count);
#pragma unroll
      for (int part = 0; part < kStageK / 16; ++part) {
        const int at = k + part * 16;
        if (at >= args.k) break;
        uint32_t a[4];
        ring.load(index, part, a);
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
          uint32_t b[2] = {};
          if (const int row = tile * 8 + g; row < args.m) {
            const auto* from = reinterpret_cast<const uint32_t*>(rows + row * pitch + at + 2 * t);
            b[0] = from[0], b[1] = from[4];
          }
          mma(Number{}, sum[tile], a, b, sum[tile]);
        }
      }
    }
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        const int row = tile * 8 + 2 * t + q % 2, column = (first + i * step) * kPanel + g + q / 2 * 8;
        if (row < args.m && column < args.n) {
          args.out[row * args.ldo + column] = finished(args, sum[tile][q], column);
        }
      }
    }
  }
  let_next_kernel_start();
}

template <class Number, int kTiles, int kStages>
void launch_few_rows(const OneWalkArgs& args, int warps, int sm_count, void* stream) {
  auto* kernel = one_walk_few_rows<Number, kTiles, kStages>;
  const int bytes = warps * kStages * kStageSize + few_rows_bytes(args);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
        "shared memory of one_walk's rows");
  const int panels = (args.n + kPanel - 1) / kPanel, blocks = std::min(sm_count, (panels + warps - 1) / warps);
  launch(
      kernel,
      {dim3(static_cast<unsigned>(blocks)), dim3(static_cast<unsigned>(warps * 32)), static_cast<size_t>(bytes), true},
      stream, "one_walk_few_rows", args);
}

template <class Number, int kTiles>
void launch_few_tiles(const OneWalkArgs& args, int sm_count, void* stream) {
  const int panels = (args.n + kPanel - 1) / kPanel;
  const auto fits = [&](int stages, int warps) {
    return warps * stages * kStageSize + few_rows_bytes(args) <= kFewBytes;
  };
  for (const int warps : {2, 4}) {  // few columns: spread over the SMs, each warp with more in flight
    if (panels <= sm_count * warps && fits(16, warps)) {
      return launch_few_rows<Number, kTiles, 16>(args, warps, sm_count, stream);
    }
  }
  if (fits(8, 8)) return launch_few_rows<Number, kTiles, 8>(args, 8, sm_count, stream);
  launch_few_rows<Number, kTiles, 4>(args, 8, sm_count, stream);
}

template <class Number>
void launch_few_rows(const OneWalkArgs& args, int sm_count, void* stream) {
  if (args.m <= 8) return launch_few_tiles<Number, 1>(args, sm_count, stream);
  launch_few_tiles<Number, 2>(args, sm_count, stream);
}

}  // namespace qf::cuda
