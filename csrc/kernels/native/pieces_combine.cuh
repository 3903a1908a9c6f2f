// Pieces of a tile meet in memory: whichever block finishes last adds all of them, in the plan's order.
#pragma once

#include <type_traits>

#include "kernels/native/async_copy.cuh"
#include "kernels/native/pieces_kernel.h"
#include "kernels/native/wgmma_left.cuh"

namespace qf::cuda {

inline constexpr int kGroupThreads = 128;  // a warpgroup

/// A warpgroup's part of a tile that is cut along K. Its threads own the same outputs in every piece.
template <class Unit, int kRows>
class PieceMeeting {
 public:
  using Word = typename Sums<Unit, kRows>::Word;
  static constexpr int kWords = Sums<Unit, kRows>::kWords;
  using Own = Word[kWords];
  static_assert(kWords % 4 == 0);

  __device__ PieceMeeting(const PiecesArgs& args, const PieceItem& item, int group, int groups, int* seen)
      : mine_(item.piece),
        pieces_(item.pieces),
        barrier_(1 + group),
        stride_(int64_t{groups} * kGroupThreads * kWords / 4),
        slots_(reinterpret_cast<uint4*>(args.partials) + item.slot * stride_ + group * kGroupThreads * (kWords / 4) +
               thread()),
        counter_(args.counters + item.counter + group),
        seen_(seen + group) {}

  /// True for the last: the others' sums are in memory. Else this piece's sums have been left there.
  __device__ bool is_last(const Own& sums) const {
    if (thread() == 0) *seen_ = count();
    meet(barrier_, kGroupThreads);
    bool last = *seen_ == pieces_ - 1;
    if (!last) {
      leave(sums);
      __threadfence();
      meet(barrier_, kGroupThreads);
      if (thread() == 0) *seen_ = atomicAdd(counter_, 1);
      meet(barrier_, kGroupThreads);
      last = *seen_ == pieces_ - 1;
    }
    __threadfence();
    meet(barrier_, kGroupThreads);  // all have read what was seen
    if (last && thread() == 0) *counter_ = 0;
    return last;
  }
  /// sums = ((p0 + p1) + p2) + ...: the pieces before this one, this one, those after it.
  __device__ void add_all(Own& sums) const {
#pragma unroll
    for (int first = 0; first < kWords; first += kBatch) {
      Word before[kBatch], next[kBatch];
      if (mine_ > 0) load(0, first, before);
#pragma unroll 1
      for (int p = 1; p < mine_; ++p) {
        load(p, first, next);
#pragma unroll
        for (int i = 0; i < kBatch; ++i) before[i] = add(before[i], next[i]);
      }
      if (mine_ > 0) {
#pragma unroll
        for (int i = 0; i < kBatch; ++i) sums[first + i] = add(before[i], sums[first + i]);
      }
#pragma unroll 1
      for (int p = mine_ + 1; p < pieces_; ++p) {
        load(p, first, next);
#pragma unroll
        for (int i = 0; i < kBatch; ++i) sums[first + i] = add(sums[first + i], next[i]);
      }
    }
  }

 private:
  static constexpr int kBatch = kWords <= 32 ? (kWords < 16 ? kWords : 16) : 32;  // words loaded together

  __device__ static int thread() { return static_cast<int>(threadIdx.x) % kGroupThreads; }
  __device__ int count() const {
    int value;
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(counter_) : "memory");
    return value;
  }
  __device__ void leave(const Own& sums) const {
    uint4* to = slots_ + mine_ * stride_;
#pragma unroll
    for (int i = 0; i < kWords / 4; ++i) {
      const Word* four = sums + 4 * i;
      __stcg(to + i * kGroupThreads, make_uint4(bits(four[0]), bits(four[1]), bits(four[2]), bits(four[3])));
    }
  }
  __device__ void load(int p, int first, Word (&piece)[kBatch]) const {
    const uint4* from = slots_ + p * stride_ + first / 4 * kGroupThreads;
#pragma unroll
    for (int i = 0; i < kBatch / 4; ++i) {
      const uint4 four = __ldcg(from + i * kGroupThreads);
      piece[4 * i] = word(four.x), piece[4 * i + 1] = word(four.y);
      piece[4 * i + 2] = word(four.z), piece[4 * i + 3] = word(four.w);
    }
  }
  static constexpr bool kFloats = std::is_same_v<Word, float>;
  __device__ static uint32_t bits(Word w) {
    if constexpr (kFloats) {
      return __float_as_uint(w);
    } else {
      return w;
    }
  }
  __device__ static Word word(uint32_t w) {
    if constexpr (kFloats) {
      return __uint_as_float(w);
    } else {
      return w;
    }
  }
  /// fp16: the fp32 sum of two fp16 numbers, rounded to fp16, is their sum rounded once.
  __device__ static Word add(Word a, Word b) {
    if constexpr (kFloats) {
      return __fadd_rn(a, b);
    } else {
      const __half2 sum = __hadd2_rn(*reinterpret_cast<const __half2*>(&a), *reinterpret_cast<const __half2*>(&b));
      return *reinterpret_cast<const uint32_t*>(&sum);
    }
  }

  int mine_, pieces_, barrier_;
  int64_t stride_;  // from slot to slot
  uint4* slots_;
  int* counter_;
  int* seen_;
};

}  // namespace qf::cuda
