// The kernel of pieces and its launch: two warps fetch stages of 64 k, warpgroups walk them. Included by pieces_<kind
// of sums>.cu: compiled side by side.
//
// Weights are the left operand, in registers: codes become numbers while the matrix units work on those before.
// The pieces' order is not the kernel's to choose: a piece is one accumulator, from +0, k ascending.
#pragma once

#include "base/cuda/check.h"
#include "base/error.h"
#include "kernels/native/load.cuh"
#include "kernels/native/pieces_combine.cuh"
#include "kernels/native/pieces_dequantize.cuh"
#include "kernels/native/pieces_store.cuh"

namespace qf::cuda {

inline constexpr int kPieceStages = 16;  // at most

/// Where a thread is in the pipeline's ring of slots; each has barriers `full` and `empty`.
class PieceSlots {
 public:
  __device__ PieceSlots(const PiecesArgs& args, uint32_t shared, uint32_t barriers, uint32_t parity)
      : args_(args), data_(shared), barrier_(barriers), parity_(parity), left_(args.stages) {
    asm volatile("" : "+r"(data_), "+r"(barrier_));  // else they are made again from their sources in every turn
  }
  __device__ uint32_t at() const { return data_; }
  __device__ CopyBarrier full() const { return {barrier_}; }
  __device__ CopyBarrier empty() const { return {barrier_ + 8}; }
  __device__ uint32_t parity() const { return parity_; }
  __device__ void next() {
    data_ += args_.stage.bytes, barrier_ += 16;
    if (--left_ == 0) {
      data_ -= args_.ring_bytes, barrier_ -= args_.stages * 16, parity_ ^= 1, left_ = args_.stages;
    }
  }

 private:
  const PiecesArgs& args_;  // constants
  uint32_t data_, barrier_, parity_;
  int left_;
};

/// What a block computes.
struct PieceList {
  const PieceItem *begin, *end;

  __device__ explicit PieceList(const PiecesArgs& args)
      : begin(args.items + args.first[blockIdx.x]), end(args.items + args.first[blockIdx.x + 1]) {}
};

/// One lane's work: codes and numbers. They are constant: no wait for earlier kernels.
template <int kColumns>
__device__ void fetch_weights(const PiecesArgs& args, PieceSlots slots) {
  const PieceList list(args);
  const int64_t row = int64_t{args.strips} * kStripWords, number_row = int64_t{args.strips} * args.number_words;
#pragma unroll 1
  for (const PieceItem* at = list.begin; at != list.end; ++at) {
    const int first = at->column / kPieceStripColumns, end = at->k_end;
    const auto strips = static_cast<uint32_t>(min(kColumns / kPieceStripColumns, args.strips - first));
    const uint32_t code_bytes = strips * kStripWords * 4, number_bytes = strips * args.number_words * 4;
    const uint32_t* codes = args.codes + at->k_begin * row + first * kStripWords;
    const uint32_t* numbers = args.numbers + at->k_begin / args.group_tiles * number_row + first * args.number_words;
    int in_group = at->k_begin % args.group_tiles;
#pragma unroll 1
    for (int k = at->k_begin; k < end; ++k, slots.next()) {
      const CopyBarrier full = slots.full();
      slots.empty().wait(slots.parity());
      full.arrive_expecting(code_bytes + number_bytes);
      copy_bytes(slots.at() + args.stage.codes_at, codes, code_bytes, full);
      copy_bytes(slots.at() + args.stage.numbers_at, numbers, number_bytes, full);
      codes += row;
      if (++in_group == args.group_tiles) in_group = 0, numbers += number_row;
    }
  }
}

/// One lane's work: activations, which earlier kernels wrote.
template <int kRows>
__device__ void fetch_activations(const PiecesArgs& args, const CUtensorMap& map, PieceSlots slots) {
  const PieceList list(args);
#pragma unroll 1
  for (const PieceItem* at = list.begin; at != list.end; ++at) {
    const int row = at->row, end = at->k_end;
#pragma unroll 1
    for (int k = at->k_begin; k < end; ++k, slots.next()) {
      const CopyBarrier full = slots.full();
      slots.empty().wait(slots.parity());
      full.arrive_expecting(kRows * kPieceTileK * 2);
      copy_box(slots.at(), map, 0, row, k, full);
    }
  }
}

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

/// A warpgroup's columns of the block's tiles. While the matrix units work on a k-tile, the codes of the next one (be
/// it of the next item) become numbers.
template <class Unit, int kRows>
class GroupWalk {
 public:
  using Word = typename Sums<Unit, kRows>::Word;
  using Number = typename Factors<Unit>::Type;
  static constexpr int kWords = Sums<Unit, kRows>::kWords;

  __device__ GroupWalk(const PiecesArgs& args, const PieceSlots& slots, int first_strip)
      : args_(args),
        codes_(args.stage.codes_at + first_strip * kStripWords * 4 + lane() * 16),
        numbers_(args.stage.numbers_at + first_strip * args.number_words * 4 + lane() / 4 * 4),
        slots_(slots) {}

  /// k-tiles of one piece; sums begin at +0. In the loop the matrix units always have one k-tile while the codes of the
  /// next become numbers; it takes two at a time, so that neither's registers are renamed while they are read.
  __device__ __forceinline__ void run(int k_tiles) {
#pragma unroll
    for (int i = 0; i < kWords; ++i) sums[i] = Word{};
    if (k_tiles % 2 == 0) {
      const uint32_t first = begin();
      settle();
      leave(first);
    }
    uint32_t running = begin();
#pragma unroll 1
    for (int pairs = (k_tiles - 1) / 2; pairs > 0; --pairs) {
      running = begin_behind(running);
      running = begin_behind(running);
    }
    settle();
    leave(running);
  }

  Word sums[kWords];

 private:
  __device__ static uint32_t lane() { return threadIdx.x % 32; }
  /// The next stage: its codes become numbers, then the matrix units have it. Its `empty` barrier.
  __device__ __forceinline__ uint32_t begin() {
    slots_.full().wait(slots_.parity());
    const uint32_t stage = slots_.at(), empty = slots_.empty().at, at = stage + numbers_;
    slots_.next();
    const uint4 words = shared_four(stage + codes_);
    const bool two = args_.rule != RuleNumbers::eight;
    PieceGroup<Number> group;
    group.set(args_.rule, shared_word(at), two ? shared_word(at + kStripNumberWords * 4) : 0);
    uint32_t weights[4][4];  // [16 k][word]
#pragma unroll
    for (int i = 0; i < 4; ++i) group.weights(word_of(words, i), weights[i]);
    // they are in registers here, and not made later, between instructions that run at the same time
#pragma unroll
    for (int i = 0; i < 16; ++i) asm volatile("" : "+r"(weights[i / 4][i % 4]));
    const uint64_t rows = row_descriptor(stage);
    wgmma_begin();
#pragma unroll
    for (int i = 0; i < 4; ++i) wgmma_left(Unit{}, sums, weights[i], rows + i * kNext16);
    wgmma_end();
    return empty;
  }
  /// The same, and the stage before is over.
  __device__ __forceinline__ uint32_t begin_behind(uint32_t before) {
    const uint32_t now = begin();
    wgmma_wait<1>();
    leave(before);
    return now;
  }
  /// The sums are complete: nobody reads them before this.
  __device__ __forceinline__ void settle() {
    wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < kWords; ++i) {
      if constexpr (std::is_same_v<Word, float>) {
        asm volatile("" : "+f"(sums[i])::"memory");
      } else {
        asm volatile("" : "+r"(sums[i])::"memory");
      }
    }
  }
  /// This warp has read a stage: its codes before, now its activations.
  __device__ __forceinline__ static void leave(uint32_t empty) {
    __syncwarp();
    if (lane() == 0) CopyBarrier{empty}.arrive();
  }
  __device__ static uint64_t row_descriptor(uint32_t shared) {
    return static_cast<uint64_t>((shared & 0x3FFFF) >> 4) | uint64_t{1} << 16 | uint64_t{1024 >> 4} << 32 |
           uint64_t{1} << 62;
  }

  const PiecesArgs& args_;
  uint32_t codes_, numbers_;  // of this lane, from the start of a stage
  PieceSlots slots_;
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
template <class Unit, int kRows>
constexpr bool kManyRegisters = Sums<Unit, kRows>::kWords > 64;
template <class Unit, int kRows>
constexpr int kFetchThreads = kManyRegisters<Unit, kRows> ? kGroupThreads : 64;

template <class Unit, int kRows, int kGroups, int kTogether>
__global__ void __launch_bounds__(kGroups* kGroupThreads + kFetchThreads<Unit, kRows>, kTogether)
    pieces_kernel(const __grid_constant__ PiecesArgs args, const __grid_constant__ CUtensorMap activations) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  extern __shared__ char dynamic[];
  __shared__ uint64_t barriers[2 * kPieceStages];
  __shared__ int seen[kGroups];
  char* const shared = dynamic + ((1024 - shared_address(dynamic) % 1024) & 1023);
  const int group = static_cast<int>(threadIdx.x) / kGroupThreads;
  const int warp = static_cast<int>(threadIdx.x) % kGroupThreads / 32;
  if (threadIdx.x == 0) {
    for (int i = 0; i < args.stages; ++i) {
      CopyBarrier{shared_address(barriers) + i * 16}.init(2);
      CopyBarrier{shared_address(barriers) + i * 16 + 8}.init(kGroups * 4);
    }
    publish_barriers();
  }
  __syncthreads();
  if (group == kGroups) {
    if constexpr (kManyRegisters<Unit, kRows>) give_registers<24>();
    const PieceSlots slots(args, shared_address(shared), shared_address(barriers), 1);  // fresh slots are free
    if (warp == 0) {
      if (threadIdx.x % 32 == 0) fetch_weights<64 * kGroups>(args, slots);
      let_next_kernel_start();
    } else if (warp == 1) {
      wait_for_earlier_kernels();
      if (threadIdx.x % 32 == 0) fetch_activations<kRows>(args, activations, slots);
    }
  } else {
    if constexpr (kManyRegisters<Unit, kRows>) take_registers<240>();
    wait_for_earlier_kernels();
    const PieceSlots slots(args, shared_address(shared), shared_address(barriers), 0);
    const PieceList list(args);
    const int strip = group * 4 + warp;
    GroupWalk<Unit, kRows> walk(args, slots, strip);
#pragma unroll 1
    for (const PieceItem* at = list.begin; at != list.end; ++at) {
      const PieceItem item = *at;
      walk.run(__shfl_sync(0xFFFFFFFFu, item.k_end - item.k_begin, 0));  // alike in all lanes, as the compiler sees
      if (item.pieces > 1) {
        const PieceMeeting<Unit, kRows> meeting(args, item, group, kGroups, seen);
        if (!meeting.is_last(walk.sums)) continue;
        meeting.add_all(walk.sums);
      }
      store_strip<Unit, kRows>(args, item, item.column + strip * kPieceStripColumns, walk.sums);
    }
  }
#endif
}

/// Calls body(kernel, threads) with the instance of a shape.
template <class Unit, class Body>
void with_pieces_kernel(const PiecesShape& shape, Body body) {
  const auto call = [&]<int kRows, int kGroups, int kTogether>() {
    body(&pieces_kernel<Unit, kRows, kGroups, kTogether>, kGroups * kGroupThreads + kFetchThreads<Unit, kRows>);
  };
  switch (shape.rows) {
    case 8:
      if constexpr (!std::is_same_v<Unit, Fp16Sums>) return call.template operator()<8, 1, 4>();
      break;
    case 16: return call.template operator()<16, 1, 4>();
    case 32: return call.template operator()<32, 2, 2>();
    case 64: return call.template operator()<64, 2, 2>();
    case 128: return call.template operator()<128, 2, 1>();
    case 256: return call.template operator()<256, 2, 1>();
    default: break;
  }
  throw Error("pieces: no kernel of " + std::to_string(shape.rows) + " rows");
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
