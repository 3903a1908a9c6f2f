// One warp's walk over k: chains of matrix-unit steps, cut where the plan's slices end.
#pragma once

#include "kernels/native/marlin_block.cuh"
#include "kernels/native/marlin_dequantize.cuh"

namespace qf::cuda {

/// Partial sums of a block: [slice][slot][row][column], rows padded by four. A slot holds one warp row, or the sum of
/// several where the plan adds them first.
struct LeafTable {
  float* base;
  int rows, pitch, slots;

  __device__ float* at(int slice, int slot) const { return base + (slice * slots + slot) * rows * pitch; }
};

/// Four 8 x 8 tiles of 16-bit numbers: the right operands of two instructions, 32 k of 8 rows.
__device__ __forceinline__ void load_matrices(uint32_t (&out)[4], uint32_t shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared));
}
__device__ __forceinline__ uint2 load_words(uint32_t shared) {
  uint2 out;
  asm volatile("ld.shared.v2.u32 {%0,%1}, [%2];" : "=r"(out.x), "=r"(out.y) : "r"(shared));
  return out;
}
__device__ __forceinline__ uint32_t load_word(uint32_t shared) {
  uint32_t out;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(out) : "r"(shared));
  return out;
}
__device__ __forceinline__ uint32_t load_half_word(uint32_t shared) {
  uint16_t out;
  asm volatile("ld.shared.u16 %0, [%1];" : "=h"(out) : "r"(shared));
  return out;
}

/// Rows: tiles of 8 rows. Strips: strips of 16 columns. Zeros: whether zero points are stored; without, they are 8.
template <class Number, int Rows, int Strips, bool Zeros>
class WarpWalk {
 public:
  __device__ WarpWalk(const MarlinArgs& args, const BlockShare& share, const LeafTable& leaves)
      : rows_(share.rows), group_shift_(args.group_shift), classes_(args.classes), leaves_(leaves) {
    const int warp = static_cast<int>(threadIdx.x) / 32, across = args.shape.group_strips / Strips;
    lane_ = static_cast<int>(threadIdx.x) % 32;
    strip_ = warp % across * Strips;
    row_ = warp / across % args.shape.row_warps * Rows * 8;
    class_ = warp / across / args.shape.row_warps;
    set_ = 1 + warp % (across * args.shape.row_warps);
    // the lowest warp rows meet the sum of the others one by one (r0 + (r1 + ...)): those of the first block of two
    // stay apart until the end
    chained_ = share.rank + 1 == args.shape.cluster;
    active_ = strip_ < share.strips && row_ < share.rows;
    if (active_) {
      const int32_t* cuts = args.cuts + args.cut_begin[blockIdx.y * args.strips + share.first_strip + strip_];
      slices_ = cuts[0];
      cut_ = cuts[1];
      next_cut_ = cuts + 2;
    }
    const auto chunk_codes = static_cast<uint32_t>(args.shape.group_strips * kChunkBytes);
    const auto chunk_rows = static_cast<uint32_t>(args.stage.activation_bytes);
    first_ = {args.stage.codes_at + class_ * chunk_codes + strip_ * kChunkBytes + lane_ * 8,
              activation_offset(row_ + (lane_ & 7), lane_ >> 3) + class_ * chunk_rows,
              (share.rank * classes_ + class_) * kChunkK};
    first_number_ = args.stage.numbers_at + strip_ * kNumberBytes + (lane_ >> 2) * 4;
    stride_ = {classes_ * chunk_codes, classes_ * chunk_rows, args.tile_k};
    group_bytes_ = static_cast<uint32_t>(args.shape.group_strips * kNumberBytes);
    keep(first_.codes), keep(first_.rows), keep(first_number_), keep(stride_.codes), keep(stride_.rows);
    keep(group_bytes_);
    clear();
  }
  /// For the reduction: how many slices each strip of the block has.
  __device__ void tell_slices(int* slices) const {
    if (active_ && row_ == 0 && class_ == 0 && lane_ < Strips) slices[strip_ + lane_] = slices_;
  }

  /// All of K, stage by stage. Values that the compiler would compute again from their sources stay in registers.
  __device__ __forceinline__ void run(const MarlinArgs& args, const Stages& stages) {
    const int k_tiles = args.k_tiles, stage_tiles = args.stage_tiles;
    uint32_t data = stages.base, full = stages.barriers, parity = 0, leader = lane_ == 0;
    keep(data), keep(full), keep(leader);
    const uint32_t wrap = full + stages.slots * 16;
    for (int tile = 0; tile < k_tiles;) {
      const int end = min(tile + stage_tiles, k_tiles);
      CopyBarrier{full}.wait(parity);
      if (active_) walk(data, tile, end);
      __syncwarp();
      if (leader) CopyBarrier{full + 8}.arrive();
      tile = end, data += stages.bytes, full += 16;
      if (full == wrap) full = stages.barriers, data = stages.base, parity ^= 1;
    }
  }

 private:
  static_assert((marlin_threads(Rows, Strips) / 32 - kFetchingWarps) / 2 <= 15, "a set's id, of two warps or more");
  static constexpr int kNumberBytes = (kScaleUnits + (Zeros ? 1 : 0)) * 16;
  static constexpr int kTiles = Rows * Strips == 1 ? 4 : (Rows * Strips <= 4 ? 2 : 1);  // loaded before they are used

  __device__ __forceinline__ static void keep(uint32_t& value) { asm volatile("" : "+r"(value)); }

  /// k-tiles [tile, end), all in one stage, which lies at `stage`.
  __device__ __forceinline__ void walk(uint32_t stage, int tile, int end) {
    Cursor at{first_.codes + stage, first_.rows + stage, first_.k};
    const uint32_t numbers = first_number_ + stage;
    do {
      const int stop = min(end, cut_);
      int left = stop - tile;
      tile = stop;
#pragma unroll 1
      for (; left >= kTiles; left -= kTiles) step_chunks<kTiles>(at, numbers);
      if constexpr (kTiles > 1) {
#pragma unroll 1
        for (; left > 0; --left) step_chunks<1>(at, numbers);
      }
      if (stop == cut_) flush();
    } while (tile < end);
  }

  static constexpr bool kKeepRows = Rows < 8;  // activations of a chunk fit into registers beside the sums

  /// Where a chunk's operands are in shared memory; k counts from the start of the stage.
  struct Cursor {
    uint32_t codes, rows;
    int k;
  };
  struct Operands {
    uint32_t x[kKeepRows ? Rows : 1][4];
    uint32_t rows;  // where x is, if it is not kept
    uint2 codes[Strips];
    uint32_t scales[Strips], zeros[Strips];
  };

  /// Chunks of `Count` k-tiles. All loads come first: their latencies overlap.
  template <int Count>
  __device__ __forceinline__ void step_chunks(Cursor& at, uint32_t numbers) {
    Operands operands[Count];
#pragma unroll
    for (int c = 0; c < Count; ++c) {
      load(operands[c], at, numbers + static_cast<uint32_t>(at.k >> group_shift_) * group_bytes_);
      at.codes += stride_.codes, at.rows += stride_.rows, at.k += stride_.k;
    }
#pragma unroll
    for (int c = 0; c < Count; ++c) multiply(operands[c]);
  }
  __device__ __forceinline__ void load(Operands& to, const Cursor& at, uint32_t numbers) const {
#pragma unroll
    for (int i = 0; i < Strips; ++i) {
      to.codes[i] = load_words(at.codes + i * kChunkBytes);
      to.scales[i] = load_word(numbers + i * kNumberBytes);
      if constexpr (Zeros) {  // half-words after the words
        to.zeros[i] = load_half_word(numbers - (lane_ >> 2) * 2 + kScaleUnits * 16 + i * kNumberBytes);
      }
    }
    if constexpr (kKeepRows) {
#pragma unroll
      for (int j = 0; j < Rows; ++j) load_matrices(to.x[j], at.rows + 8 * j * kActivationChunkBytes);
    } else {
      to.rows = at.rows;
    }
  }
  __device__ __forceinline__ void multiply(const Operands& from) {
    uint32_t w[Strips][2][4];
#pragma unroll
    for (int i = 0; i < Strips; ++i) {
      LaneGroup<Number> group;
      group.set_scales(from.scales[i]);
      if constexpr (Zeros) {
        group.set_zeros(from.zeros[i]);
      } else {
        group.set_zeros_to_eight();
      }
      group.weights(from.codes[i].x, w[i][0]);
      group.weights(from.codes[i].y, w[i][1]);
    }
#pragma unroll
    for (int j = 0; j < Rows; ++j) {
      uint32_t x[4];
      if constexpr (kKeepRows) {
#pragma unroll
        for (int q = 0; q < 4; ++q) x[q] = from.x[j][q];
      } else {
        load_matrices(x, from.rows + 8 * j * kActivationChunkBytes);
      }
#pragma unroll
      for (int s = 0; s < 2; ++s) {
#pragma unroll
        for (int i = 0; i < Strips; ++i) step(Number{}, sum_[i][j], w[i][s], x[2 * s], x[2 * s + 1]);
      }
    }
  }

  /// The end of a slice: its sums go to the table.
  __device__ __forceinline__ void flush() {
    float* const to = leaves_.at(slice_, chained_ ? 0 : class_);
    const int highest = chained_ ? classes_ - 1 : 0, mine = chained_ ? class_ : 0;
    for (int turn = highest; turn >= 0; --turn) {  // from the highest warp row down
      if (turn == mine) store_sums(to, turn < highest);
      if (turn > 0) meet(set_, classes_ * 32);
    }
    clear();
    slice_ += 1;
    cut_ = slice_ < slices_ ? *next_cut_++ : 0;
  }
  /// to = own sums, or own sums + to. The same lane of every warp of a set owns the same outputs, no other set does,
  /// and the next slice has another place: meet() orders the set's turns, nothing else need be ordered.
  __device__ __forceinline__ void store_sums(float* to, bool add) const {
    const int row = row_ + 2 * (lane_ & 3), pitch = leaves_.pitch;
    float* first = to + row * pitch + strip_ * kStripColumns + (lane_ >> 2);
    int rows = rows_ - row;
    asm volatile("" : "+l"(first), "+r"(rows));  // else addresses are made before the walk and take its registers
#pragma unroll
    for (int j = 0; j < Rows; ++j) {
#pragma unroll
      for (int q = 0; q < 2; ++q) {
        if (8 * j + q >= rows) continue;
        float* const at = first + (8 * j + q) * pitch;
#pragma unroll
        for (int i = 0; i < 2 * Strips; ++i) {
          const float sum = sum_[i / 2][j][i % 2 * 2 + q];
          at[8 * i] = add ? __fadd_rn(sum, at[8 * i]) : sum;
        }
      }
    }
  }
  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < Strips; ++i)
#pragma unroll
      for (int j = 0; j < Rows; ++j)
#pragma unroll
        for (int q = 0; q < 4; ++q) sum_[i][j][q] = 0.0f;
  }

  int rows_, group_shift_, classes_;
  LeafTable leaves_;
  int lane_, strip_, row_, class_, set_;
  bool active_, chained_;
  int slice_ = 0, slices_ = 0, cut_ = 0;
  const int32_t* next_cut_ = nullptr;
  Cursor first_, stride_;
  uint32_t first_number_, group_bytes_;
  float sum_[Strips][Rows][4];
};

}  // namespace qf::cuda
