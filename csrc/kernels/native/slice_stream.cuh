// slice_gemm.cuh's work for up to 8 rows of activations: the same slices, layouts and sums, with the weights streamed.
// A thread block takes one tile of 16 columns after another; each of its warps brings the pairs of units of its slice
// through a ring of its own in shared memory, which runs on from one tile to the next, so that weights arrive while
// steps are taken and slices are added. The activations of a warp's slice are brought once.
//
//   stage: [lane][16 bytes] codes of a pair; [unit of the pair][g][8 bytes] numbers of their groups
//   rows:  [row][unit of the slice][32 k]; 32 bytes more than whole lines apart: four rows' parts of a step lie in
//          different banks
#pragma once

#include "kernels/native/slice_gemm.cuh"

namespace qf::cuda {

constexpr int kPairBytes = 32 * 16 + 2 * 8 * 8;

__host__ __device__ inline int staged_row_bytes(const SliceMap& map) {
  return (map.full_units(0) * 64 + 127) / 128 * 128 + 32;
}
template <class Arithmetic, int kStages>
int stream_bytes(const SliceMap& map, int m) {
  return SlicePartials<Arithmetic, 1, 1>::kBytes + kSlices * (kStages * kPairBytes + m * staged_row_bytes(map));
}

/// A warp's stream of pairs over the tiles of its block.
template <class Arithmetic, int kStages>
class PairStream {
 public:
  static constexpr int kPer = Arithmetic::kUnitsPerChunk;

  __device__ PairStream(const SliceArgs& args, char* ring, int slice, int units)
      : args_(args),
        ring_(ring),
        slice_(slice),
        lane_(static_cast<int>(threadIdx.x) % 32),
        units_(units),
        pairs_((units + 1) / 2),
        tile_(static_cast<int>(blockIdx.x)) {}

  __device__ int pairs() const { return pairs_; }
  /// k / 32 of a unit of the slice.
  static __device__ int unit_of_k(int slice, int unit) { return (unit / kPer * kSlices + slice) * kPer + unit % kPer; }
  /// Queues the copy of the next pair.
  __device__ void fill() {
    if (tile_ < args_.tiles && pairs_ > 0) {
      char* stage = ring_ + slot_ * kPairBytes;
      const uint4* codes = args_.codes + (static_cast<int64_t>(tile_) * kSlices + slice_) * args_.map.pairs() * 32;
      copy_past_cache(stage + lane_ * 16, codes + pair_ * 32 + lane_, 16);
      if (lane_ < 8) {
        const int unit = min(2 * pair_ + lane_ / 4, units_ - 1);
        const int group = unit_of_k(slice_, unit) >> args_.group_shift;
        const uint2* numbers = args_.numbers + (static_cast<int64_t>(tile_) * args_.groups + group) * 8;
        copy_past_cache(stage + 512 + lane_ * 16, numbers + lane_ % 4 * 2, 16);
      }
      slot_ = slot_ + 1 == kStages ? 0 : slot_ + 1;
      if (++pair_ == pairs_) pair_ = 0, tile_ += static_cast<int>(gridDim.x);
    }
    asm volatile("cp.async.commit_group;");
  }
  /// The oldest pair's stage, when all lanes may read it and are done with the one before.
  __device__ const char* next() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 2) : "memory");
    __syncwarp();
    const char* stage = ring_ + taken_ * kPairBytes;
    taken_ = taken_ + 1 == kStages ? 0 : taken_ + 1;
    return stage;
  }

 private:
  const SliceArgs& args_;
  char* ring_;
  int slice_, lane_, units_, pairs_;
  int tile_, pair_ = 0, slot_ = 0, taken_ = 0;
};

/// Brings the activations of a slice and waits for them and for whatever else the warp has under way.
template <int kPer>
__device__ void stage_rows(const SliceArgs& args, char* rows, int slice, int units) {
  const int lane = static_cast<int>(threadIdx.x) % 32, pitch = staged_row_bytes(args.map);
  for (int row = 0; row < args.rows.m; ++row) {
    const uint16_t* from = args.rows.activations + row * args.rows.lda;
    for (int i = lane; i < units * 4; i += 32) {
      const int unit = (i / 4 / kPer * kSlices + slice) * kPer + i / 4 % kPer;
      *reinterpret_cast<uint4*>(rows + row * pitch + i * 16) =
          *reinterpret_cast<const uint4*>(from + unit * kUnit + i % 4 * 8);
    }
  }
  __syncwarp();
}

template <class Arithmetic, int kStages, int kBlocks>
__global__ void __launch_bounds__(kSlices * 32, kBlocks) slice_stream(const __grid_constant__ SliceArgs args) {
  extern __shared__ __align__(16) char shared[];
  using Partials = SlicePartials<Arithmetic, 1, 1>;
  let_next_kernel_start();
  const int slice = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int units = args.map.full_units(slice), row_bytes = args.rows.m * staged_row_bytes(args.map);
  const Partials partials{reinterpret_cast<typename Arithmetic::Partial*>(shared)};
  char* const rows = shared + Partials::kBytes + slice * row_bytes;
  PairStream<Arithmetic, kStages> stream(
      args, shared + Partials::kBytes + kSlices * row_bytes + slice * kStages * kPairBytes, slice, units);
#pragma unroll 1
  for (int i = 0; i < kStages - 1; ++i) stream.fill();
  wait_for_earlier_kernels();
  stage_rows<Arithmetic::kUnitsPerChunk>(args, rows, slice, units);
  const char* const row = rows + min(lane / 4, args.rows.m - 1) * staged_row_bytes(args.map) + lane % 4 * 8;

  for (int tile = static_cast<int>(blockIdx.x); tile < args.tiles; tile += static_cast<int>(gridDim.x)) {
    float sum[1][1][4] = {};
    const auto take = [&](uint32_t low, uint32_t high, const char* numbers, const char* x) {
      const typename Arithmetic::Group group(*reinterpret_cast<const uint2*>(numbers + lane / 4 * 8));
#pragma unroll
      for (int step = 0; step < 2; ++step) {
        uint32_t a[4];
        group.weights(step == 0 ? low : high, a);
        const uint2 two = *reinterpret_cast<const uint2*>(x + step * 32);
        const uint32_t b[2] = {two.x, two.y};
        Arithmetic::join(sum[0][0], a, b);
      }
    };
#pragma unroll 2
    for (int pair = 0; pair < stream.pairs(); ++pair) {
      const char* stage = stream.next();
      stream.fill();
      const uint4 codes = *reinterpret_cast<const uint4*>(stage + lane * 16);
      take(codes.x, codes.y, stage + 512, row + pair * 128);
      if (2 * pair + 1 < units) take(codes.z, codes.w, stage + 576, row + pair * 128 + 64);
    }
    partials.store(slice, lane, sum);
    __syncthreads();
    write_totals<Arithmetic>(args, partials, tile);
    __syncthreads();  // the next tile's partial sums lie there too
  }
}

}  // namespace qf::cuda
