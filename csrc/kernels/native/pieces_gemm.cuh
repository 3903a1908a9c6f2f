// The kernel of pieces and its launch: a warp fetches stages of 64 k, warpgroups walk them. Included by pieces_<kind of
// sums>.cu: compiled side by side.
//
// Weights are the left operand, in registers: codes become numbers while the matrix units work on those before.
#pragma once

#include "base/cuda/check.h"
#include "base/error.h"
#include "kernels/native/pieces_combine.cuh"
#include "kernels/native/pieces_dequantize.cuh"
#include "kernels/native/pieces_store.cuh"

namespace qf::cuda {

inline constexpr int kPieceStages = 16;  // at most

/// The slots of the pipeline: of each, barriers `full` and `empty`.
struct PieceSlots {
  uint32_t data, barriers, bytes;
  int count, slot = 0;
  uint32_t parity;

  __device__ PieceSlots(const PiecesArgs& args, uint32_t shared, uint32_t first_barrier, uint32_t first_parity)
      : data(shared),
        barriers(first_barrier),
        bytes(static_cast<uint32_t>(args.stage.bytes)),
        count(args.stages),
        parity(first_parity) {}
  __device__ uint32_t at() const { return data + slot * bytes; }
  __device__ CopyBarrier full() const { return {barriers + slot * 16}; }
  __device__ CopyBarrier empty() const { return {barriers + slot * 16 + 8}; }
  __device__ void next() {
    if (++slot == count) slot = 0, parity ^= 1;
  }
};

/// A block's k-tiles, item after item.
struct PieceWalk {
  const PieceItem *at, *end;
  PieceItem item;
  int k;

  __device__ explicit PieceWalk(const PiecesArgs& args)
      : at(args.items + args.first[blockIdx.x]), end(args.items + args.first[blockIdx.x + 1]) {
    enter();
  }
  __device__ bool done() const { return at == end; }
  __device__ void next() {
    if (++k < item.k_end) return;
    ++at;
    enter();
  }

 private:
  __device__ void enter() {
    if (done()) return;
    item = *at;
    k = item.k_begin;
  }
};

/// One lane's work. Weights are constant: the first stages' are fetched before earlier kernels are done.
template <int kRows, int kColumns>
class PieceFetch {
 public:
  __device__ PieceFetch(const PiecesArgs& args, const CUtensorMap& map, const PieceSlots& slots)
      : args_(args), map_(map), slots_(slots), walk_(args) {}

  __device__ void first_weights() {
    PieceWalk walk = walk_;
    PieceSlots slots = slots_;
    for (; ahead_ < slots.count && !walk.done(); ++ahead_, walk.next(), slots.next()) weights(walk, slots);
  }
  __device__ void run() {
    for (; !walk_.done(); walk_.next(), slots_.next()) {
      if (ahead_ > 0) {
        --ahead_;
      } else {
        slots_.empty().wait(slots_.parity);
        weights(walk_, slots_);
      }
      copy_box(slots_.at(), map_, 0, walk_.item.row, walk_.k, slots_.full());
    }
  }

 private:
  /// Names the bytes of the whole stage.
  __device__ void weights(const PieceWalk& walk, const PieceSlots& slots) const {
    const int first = walk.item.column / kPieceStripColumns;
    const auto strips = static_cast<uint32_t>(min(kColumns / kPieceStripColumns, args_.strips - first));
    const uint32_t codes = strips * kStripWords * 4, numbers = strips * args_.number_words * 4;
    const int64_t group = static_cast<int64_t>(walk.k / args_.group_tiles) * args_.strips + first;
    slots.full().arrive_expecting(kRows * kPieceTileK * 2 + codes + numbers);
    copy_bytes(slots.at() + args_.stage.codes_at,
               args_.codes + (static_cast<int64_t>(walk.k) * args_.strips + first) * kStripWords, codes, slots.full());
    copy_bytes(slots.at() + args_.stage.numbers_at, args_.numbers + group * args_.number_words, numbers, slots.full());
  }

  const PiecesArgs& args_;
  const CUtensorMap& map_;
  PieceSlots slots_;
  PieceWalk walk_;
  int ahead_ = 0;
};

__device__ __forceinline__ uint4 shared_four(uint32_t at) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(at));
  return v;
}
__device__ __forceinline__ uint32_t shared_word(uint32_t at) {
  uint32_t v;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(at));
  return v;
}

/// A warpgroup's columns of the block's tiles. While the matrix units work on 16 k, the codes of the next 16 become
/// numbers; while they finish a k-tile, the codes of the next one (be it of the next item) are loaded.
template <class Unit, int kRows, int kBlocks>
class GroupWalk {
 public:
  using Word = typename Sums<Unit, kRows>::Word;
  using Number = typename Factors<Unit>::Type;
  static constexpr int kWords = Sums<Unit, kRows>::kWords;

  __device__ GroupWalk(const PiecesArgs& args, const PieceSlots& slots, int k_tiles, int first_strip)
      : rule_(args.rule),
        codes_(args.stage.codes_at + first_strip * kStripWords * 4 + lane() * 16),
        numbers_(args.stage.numbers_at + first_strip * args.number_words * 4 + lane() / 4 * 4),
        next_numbers_(4 * args.number_words * 4),
        left_(k_tiles),
        slots_(slots) {
    load();
  }

  /// k-tiles of one piece; sums begin at +0.
  __device__ __forceinline__ void run(int k_tiles) {
#pragma unroll
    for (int b = 0; b < kBlocks; ++b)
#pragma unroll
      for (int i = 0; i < kWords; ++i) sums[b][i] = Word{};
#pragma unroll 1
    for (; k_tiles > 0; --k_tiles) {
      const uint64_t rows = row_descriptor(stage_);
      const uint32_t empty = empty_;
      PieceGroup<Number> group[kBlocks];
      uint32_t weights[4][kBlocks][4];
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) group[b].set(rule_, scales_[b], seconds_[b]);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int b = 0; b < kBlocks; ++b) group[b].weights(codes_of_[b][i], weights[i][b]);
        made(weights[i]);
        wgmma_begin();
#pragma unroll
        for (int b = 0; b < kBlocks; ++b) wgmma_left(Unit{}, sums[b], weights[i][b], rows + i * kNext16);
        wgmma_end();
      }
      load();
      wgmma_wait<0>();
      __syncwarp();  // this warp has read the stage: its codes before, now its activations
      if (lane() == 0) CopyBarrier{empty}.arrive();
    }
  }

  Word sums[kBlocks][kWords];

 private:
  __device__ static uint32_t lane() { return threadIdx.x % 32; }
  /// The weights are in registers here, and not made later, between instructions that run at the same time.
  __device__ __forceinline__ static void made(uint32_t (&weights)[kBlocks][4]) {
#pragma unroll
    for (int i = 0; i < kBlocks * 4; ++i) asm volatile("" : "+r"(weights[i / 4][i % 4]));
  }
  /// The next stage's codes and numbers; beyond the last stage, whatever lies there.
  __device__ __forceinline__ void load() {
    if (left_ > 0) slots_.full().wait(slots_.parity);
    --left_;
    stage_ = slots_.at();
    empty_ = slots_.empty().at;
    slots_.next();
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
      const uint4 words = shared_four(stage_ + codes_ + b * 4 * kStripWords * 4);
      const uint32_t at = stage_ + numbers_ + b * next_numbers_;
      codes_of_[b][0] = words.x, codes_of_[b][1] = words.y, codes_of_[b][2] = words.z, codes_of_[b][3] = words.w;
      scales_[b] = shared_word(at);
      seconds_[b] = rule_ == RuleNumbers::eight ? 0 : shared_word(at + kStripNumberWords * 4);
    }
  }
  __device__ static uint64_t row_descriptor(uint32_t shared) {
    return static_cast<uint64_t>((shared & 0x3FFFF) >> 4) | uint64_t{1} << 16 | uint64_t{1024 >> 4} << 32 |
           uint64_t{1} << 62;
  }

  RuleNumbers rule_;
  uint32_t codes_, numbers_, next_numbers_;
  int left_;  // stages to come
  PieceSlots slots_;
  uint32_t stage_, empty_;  // the loaded one, its barrier
  uint32_t codes_of_[kBlocks][4], scales_[kBlocks], seconds_[kBlocks];
};

/// Registers move from warps that fetch to warps that walk, a warpgroup at a time (PTX ISA, "setmaxnreg").
template <int kRegisters>
__device__ __forceinline__ void take_registers() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
#endif
}
template <int kRegisters>
__device__ __forceinline__ void give_registers() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
#endif
}

/// Whether a walker's sums and weights need more registers than an even share: then a whole warpgroup fetches.
template <class Unit, int kRows, int kBlocks>
constexpr bool kManyRegisters = Sums<Unit, kRows>::kWords * kBlocks > 64;
template <class Unit, int kRows, int kBlocks>
constexpr int kFetchThreads = kManyRegisters<Unit, kRows, kBlocks> ? kGroupThreads : 32;

template <class Unit, int kRows, int kBlocks, int kGroups, int kTogether>
__global__ void __launch_bounds__(kGroups* kGroupThreads + kFetchThreads<Unit, kRows, kBlocks>, kTogether)
    pieces_kernel(const __grid_constant__ PiecesArgs args, const __grid_constant__ CUtensorMap activations) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  extern __shared__ char dynamic[];
  __shared__ uint64_t barriers[2 * kPieceStages];
  __shared__ int seen[kGroups];
  char* const shared = dynamic + ((1024 - shared_address(dynamic) % 1024) & 1023);
  const int group = static_cast<int>(threadIdx.x) / kGroupThreads;
  if (threadIdx.x == 0) {
    for (int i = 0; i < args.stages; ++i) {
      CopyBarrier{shared_address(barriers) + i * 16}.init(1);
      CopyBarrier{shared_address(barriers) + i * 16 + 8}.init(kGroups * 4);
    }
    publish_barriers();
  }
  __syncthreads();
  if (group == kGroups) {
    if constexpr (kManyRegisters<Unit, kRows, kBlocks>) give_registers<24>();
    if (threadIdx.x >= kGroups * kGroupThreads + 32) return;
    const PieceSlots slots(args, shared_address(shared), shared_address(barriers), 1);  // fresh slots are free
    PieceFetch<kRows, 64 * kBlocks * kGroups> fetch(args, activations, slots);
    if (threadIdx.x % 32 == 0) fetch.first_weights();
    __syncwarp();
    wait_for_earlier_kernels();
    if (threadIdx.x % 32 == 0) fetch.run();
    let_next_kernel_start();
    return;
  }
  if constexpr (kManyRegisters<Unit, kRows, kBlocks>) take_registers<240>();
  wait_for_earlier_kernels();
  const int warp = static_cast<int>(threadIdx.x) / 32 % 4;
  const PieceSlots slots(args, shared_address(shared), shared_address(barriers), 0);
  const PieceItem* const begin = args.items + args.first[blockIdx.x];
  const PieceItem* const end = args.items + args.first[blockIdx.x + 1];
  int k_tiles = 0;
  for (const PieceItem* at = begin; at != end; ++at) k_tiles += at->k_end - at->k_begin;
  GroupWalk<Unit, kRows, kBlocks> walk(args, slots, k_tiles, group * kBlocks * 4 + warp);
#pragma unroll 1
  for (const PieceItem* at = begin; at != end; ++at) {
    const PieceItem item = *at;
    walk.run(item.k_end - item.k_begin);
    if (item.pieces > 1) {
      const PieceMeeting<Unit, kRows, kBlocks> meeting(args, item, group, kGroups, seen);
      if (!meeting.is_last(walk.sums)) continue;
      meeting.add_all(walk.sums);
    }
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
      const int strip = (group * kBlocks + b) * 4 + warp;
      store_strip<Unit, kRows>(args, item, item.column + strip * kPieceStripColumns, walk.sums[b]);
    }
  }
#endif
}

/// Calls body(kernel, threads) with the instance of a shape.
template <class Unit, class Body>
void with_pieces_kernel(const PiecesShape& shape, Body body) {
  const auto call = [&]<int kRows, int kBlocks, int kGroups, int kTogether>() {
    body(&pieces_kernel<Unit, kRows, kBlocks, kGroups, kTogether>,
         kGroups * kGroupThreads + kFetchThreads<Unit, kRows, kBlocks>);
  };
  switch (shape.rows * 10 + shape.blocks) {
    case 81:
      if constexpr (!std::is_same_v<Unit, Fp16Sums>) return call.template operator()<8, 1, 1, 4>();
      break;
    case 161: return call.template operator()<16, 1, 1, 4>();
    case 321: return call.template operator()<32, 1, 2, 2>();
    case 641: return call.template operator()<64, 1, 2, 2>();
    case 1281: return call.template operator()<128, 1, 2, 1>();
    case 1282: return call.template operator()<128, 2, 2, 1>();
    default: break;
  }
  throw Error("pieces: no kernel of " + std::to_string(shape.rows) + " rows and " + std::to_string(shape.blocks) +
              " blocks of columns");
}

template <class Unit>
void prepare_pieces(const PiecesShape& shape, int shared_bytes) {
  with_pieces_kernel<Unit>(shape, [&](auto* kernel, int) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes),
          "shared memory of pieces");
  });
}

template <class Unit>
void launch_pieces(const PiecesLaunch& l) {
  with_pieces_kernel<Unit>(l.shape, [&](auto* kernel, int threads) {
    const LaunchShape shape{dim3(static_cast<unsigned>(l.blocks)), dim3(static_cast<unsigned>(threads)),
                            static_cast<size_t>(l.shared_bytes), true};
    launch(kernel, shape, l.stream, "pieces", l.args, l.activations);
  });
}

}  // namespace qf::cuda
