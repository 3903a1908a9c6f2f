// One warp's walk over k: chains of matrix-unit steps, cut where the plan's slices end.
#pragma once

#include "kernels/native/marlin_block.cuh"
#include "kernels/native/marlin_dequantize.cuh"

namespace qf::cuda {

/// Partial sums of a block: [slice][warp row, where warps hold one each][row][column], rows padded by four.
struct LeafTable {
  float* base;
  int rows, pitch, classes;

  __device__ float* at(int slice, int warp_row) const { return base + (slice * classes + warp_row) * rows * pitch; }
};

/// Four 8 x 8 tiles of 16-bit numbers: the right operands of two instructions, 32 k of 8 rows.
__device__ __forceinline__ void load_matrices(uint32_t (&out)[4], uint32_t shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared)
               : "memory");
}

/// Rows: tiles of 8 rows. Strips: strips of 16 columns. Chains: warp rows that this warp walks side by side. Zeros:
/// whether zero points are stored; without, they are 8.
template <class Number, int Rows, int Strips, int Chains, bool Zeros>
class WarpWalk {
 public:
  __device__ WarpWalk(const MarlinArgs& args, const BlockShare& share, const LeafTable& leaves)
      : args_(args), share_(share), leaves_(leaves) {
    const int warp = static_cast<int>(threadIdx.x) / 32, across = args.shape.group_strips / Strips;
    lane_ = static_cast<int>(threadIdx.x) % 32;
    strip_ = warp % across * Strips;
    row_ = warp / across % args.shape.row_warps * Rows * 8;
    class_ = Chains > 1 ? 0 : warp / across / args.shape.row_warps;
    active_ = strip_ < share.strips && row_ < share.rows;
    if (active_) {
      const int32_t* cuts = args.cuts + args.cut_begin[blockIdx.y * args.strips + share.first_strip + strip_];
      slices_ = cuts[0];
      cut_ = cuts[1];
      next_cut_ = cuts + 2;
    }
    // one lane's address of ldmatrix: row, unit of 8 k
    row_offset_ = activation_offset(row_ + (lane_ & 7), lane_ >> 3) + class_ * args.stage.activation_bytes;
    const int step = Chains > 1 ? 1 : share.classes;  // chunks of a stage from one to the warp's next
    code_stride_ = step * share.strips * kChunkBytes;
    row_stride_ = step * args.stage.activation_bytes;
    k_stride_ = Chains > 1 ? kChunkK : share.tile_k;
    group_bytes_ = share.strips * kNumberBytes;
    clear();
  }
  /// For the reduction: how many slices each strip of the block has.
  __device__ void tell_slices(int* slices) const {
    if (active_ && row_ == 0 && class_ == 0 && lane_ < Strips) slices[strip_ + lane_] = slices_;
  }

  /// k-tiles [tile, end), all in one stage.
  __device__ void walk(const Stages& stages, int slot, int tile, int end) {
    if (!active_) return;
    Cursor at{stages.codes(slot) + (class_ * share_.strips + strip_) * kChunkBytes + lane_ * 8,
              shared_address(stages.activations(slot)) + row_offset_,
              (share_.rank * share_.classes + class_) * kChunkK};
    const char* numbers = stages.numbers(slot) + strip_ * kNumberBytes;
    while (tile < end) {
      const int stop = min(end, cut_);
#pragma unroll(Chains > 1 ? 1 : (Rows == 4 ? 2 : 4))
      for (; tile < stop; ++tile) {
#pragma unroll
        for (int chain = 0; chain < Chains; ++chain) {
          step_chunk(sum_[chain], at, numbers + (at.k >> args_.group_shift) * group_bytes_);
          at.codes += code_stride_, at.rows += row_stride_, at.k += k_stride_;
        }
      }
      if (tile == cut_) flush();
    }
  }

 private:
  static constexpr int kNumberBytes = (kScaleUnits + (Zeros ? 1 : 0)) * 16;

  /// Where a chunk's operands are; k counts from the start of the stage.
  struct Cursor {
    const char* codes;
    uint32_t rows;
    int k;
  };

  __device__ __forceinline__ void step_chunk(float (&sum)[Strips][Rows][4], const Cursor& at, const char* numbers) {
    uint32_t x[Rows][4];
#pragma unroll
    for (int j = 0; j < Rows; ++j) load_matrices(x[j], at.rows + 8 * j * kActivationChunkBytes);
#pragma unroll
    for (int i = 0; i < Strips; ++i) {
      const LaneGroup<Number> group = load_group(numbers + i * kNumberBytes);
      const uint2 word = *reinterpret_cast<const uint2*>(at.codes + i * kChunkBytes);
      uint32_t w[4];
      group.weights(word.x, w);
#pragma unroll
      for (int j = 0; j < Rows; ++j) mma(Number{}, sum[i][j], w, {x[j][0], x[j][1]}, sum[i][j]);
      group.weights(word.y, w);
#pragma unroll
      for (int j = 0; j < Rows; ++j) mma(Number{}, sum[i][j], w, {x[j][2], x[j][3]}, sum[i][j]);
    }
  }
  __device__ __forceinline__ LaneGroup<Number> load_group(const char* numbers) const {
    const int g = lane_ >> 2;
    LaneGroup<Number> group;
    group.set_scales(args_.scaled_later ? Pair<Number>::kOne : reinterpret_cast<const uint32_t*>(numbers)[g]);
    if constexpr (Zeros) {
      group.set_zeros(reinterpret_cast<const uint16_t*>(numbers + kScaleUnits * 16)[g]);
    } else {
      group.set_zeros_to_eight();
    }
    return group;
  }

  /// The end of a slice: its sums (of all warp rows, where this warp has them) go to the table.
  __device__ void flush() {
    float* const base = leaves_.at(slice_, class_);
    const int g = lane_ >> 2, t = lane_ & 3;
#pragma unroll
    for (int i = 0; i < Strips; ++i) {
#pragma unroll
      for (int j = 0; j < Rows; ++j) {
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          const int row = row_ + 8 * j + 2 * t + (q & 1), column = (strip_ + i) * kStripColumns + g + (q & 2) * 4;
          if (row < share_.rows) base[row * leaves_.pitch + column] = slice_sum(i, j, q);
        }
      }
    }
    clear();
    slice_ += 1;
    cut_ = slice_ < slices_ ? *next_cut_++ : 0;
  }
  __device__ __forceinline__ float slice_sum(int i, int j, int q) const {
    if constexpr (Chains == 4) {
      const float upper = __fadd_rn(sum_[3][i][j][q], sum_[2][i][j][q]);
      return __fadd_rn(sum_[0][i][j][q], __fadd_rn(sum_[1][i][j][q], upper));
    } else if constexpr (Chains == 2) {
      return __fadd_rn(sum_[0][i][j][q], sum_[1][i][j][q]);
    } else {
      return sum_[0][i][j][q];
    }
  }
  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int chain = 0; chain < Chains; ++chain)
#pragma unroll
      for (int i = 0; i < Strips; ++i)
#pragma unroll
        for (int j = 0; j < Rows; ++j)
#pragma unroll
          for (int q = 0; q < 4; ++q) sum_[chain][i][j][q] = 0.0f;
  }

  const MarlinArgs& args_;
  const BlockShare& share_;
  LeafTable leaves_;
  int lane_, strip_, row_, class_;
  bool active_;
  int slice_ = 0, slices_ = 0, cut_ = 0;
  const int32_t* next_cut_ = nullptr;
  int code_stride_, row_stride_, k_stride_, group_bytes_;
  uint32_t row_offset_;
  float sum_[Chains][Strips][Rows][4];
};

}  // namespace qf::cuda
