// FlashAttention's arithmetic (operators/flash_rows.cpp) on a GPU: one thread block takes some packed rows of a kv head
// through the key blocks of a part, last to first.
//
// Scores: warps share rows and keys; probabilities: by way of shared memory; values: warps share rows and elements, and
// keep their outputs in registers. Keys and values come in chunks of 32 k, two in shared memory and one in registers.
//
// The CPU takes 32 rows together and stops at the last key that one of them sees, rounded up to 16: which zero products
// a row meets decides over NaN and -0, so the warps of 32 rows stop there too.
#pragma once

#include "base/cuda/overlap.cuh"
#include "operators/cuda/flash_kernels.h"
#include "operators/cuda/flash_sfu.cuh"
#include "operators/cuda/flash_softmax.cuh"

namespace qf::cuda {

constexpr int kRowGroup = 32;  // rows that the CPU takes together

template <int kHead, int kWarpsR, int kWarpsC, int kTilesR, int kTilesC>
struct FlashLayout {
  static constexpr int head = kHead, warps_c = kWarpsC, tiles_r = kTilesR, tiles_c = kTilesC;
  static constexpr int threads = kWarpsR * kWarpsC * 32;
  static constexpr int rows = kWarpsR * kTilesR * 16, keys = kWarpsC * kTilesC * 8;
  static constexpr int head_chunks = kHead / kChunk, tiles_v = kHead / 8 / kWarpsC;
  static constexpr int lanes = threads / rows;  // of a row, in the softmax
  static constexpr int right_rows = keys > kHead ? keys : kHead;
  static_assert(tiles_v * 8 * kWarpsC == kHead && lanes >= 4 && kTilesR * 16 <= kRowGroup);
};
template <int kHead>
using FewRows = FlashLayout<kHead, 1, 8, 1, 2>;
template <int kHead>
using ManyRows = FlashLayout<kHead, 2, 8, 2, 2>;

template <class Step, class L>
struct FlashShared {
  static constexpr bool kExponents = Step::uses_exponents;
  using Operand = Chunks<kExponents>;
  static constexpr int kPieces = 128;
  SfuPiece* pieces;
  Operand queries, stages, probabilities;
  RowStates states;
  float* scores;
  int score_ld;

  static constexpr int kQueries = kPieces * static_cast<int>(sizeof(SfuPiece));
  static constexpr int kStages = kQueries + Operand::bytes(L::head_chunks, L::rows);
  static constexpr int kStates = kStages + Operand::bytes(2, L::right_rows);
  static constexpr int kProbabilities = kStates + L::rows * 6 * static_cast<int>(sizeof(float));
  /// 8 more than the keys: float2 of eight rows then lie in different banks.
  __host__ __device__ static constexpr int ld(int block_keys) { return block_keys + 8; }
  __host__ __device__ static constexpr int scores_at(int block_keys) {
    return kProbabilities + Operand::bytes(block_keys / kChunk, L::rows);
  }
  __host__ static constexpr int bytes(int block_keys) {
    return scores_at(block_keys) + L::rows * ld(block_keys) * static_cast<int>(sizeof(float));
  }

  __device__ FlashShared(char* base, int block_keys)
      : pieces(reinterpret_cast<SfuPiece*>(base)),
        queries(base + kQueries, L::head_chunks, L::rows),
        stages(base + kStages, 2, L::right_rows),
        probabilities(base + kProbabilities, block_keys / kChunk, L::rows),
        scores(reinterpret_cast<float*>(base + scores_at(block_keys))),
        score_ld(ld(block_keys)) {
    states.largest = reinterpret_cast<float*>(base + kStates);
    states.factor = states.largest + L::rows;
    states.sums = states.factor + L::rows;
  }
};

/// The rows of a thread block, and what they see.
struct FlashTile {
  const FlashJob& job;
  FlashItem item;
  FlashSequence sequence;
  int kv_head, total_rows;

  __device__ explicit FlashTile(const FlashJob& j)
      : job(j),
        item(j.items[blockIdx.x / j.kv_heads]),
        sequence(j.sequence(item.sequence)),
        kv_head(blockIdx.x % j.kv_heads),
        total_rows(sequence.queries * j.group) {}
  /// Rows beyond the end repeat the last one; nobody stores them.
  __device__ int packed(int row) const { return min(item.first_row + row, total_rows - 1); }
  __device__ bool real(int row) const { return item.first_row + row < total_rows; }
  __device__ int visible(int row) const { return item.keys - sequence.queries + packed(row) / job.group + 1; }
  /// Keys that the row group of `row` sees.
  __device__ int most(int row) const {
    const int first = row / kRowGroup * kRowGroup;
    return real(first) ? visible(first + kRowGroup - 1) : 0;
  }
  __device__ int padded(int most_keys, int first_key) const {
    return most_keys <= first_key ? 0 : (min(job.block_keys, most_keys - first_key) + 15) / 16 * 16;
  }
  __device__ int64_t head_offset(int row, int head_size) const {
    return static_cast<int64_t>(kv_head * job.group + packed(row) % job.group) * head_size;
  }
};

template <class Step, class Format, class L>
struct FlashBlock {
  using Shared = FlashShared<Step, L>;
  using Accumulators = float[L::tiles_r][L::tiles_c][4];
  using Outputs = float[L::tiles_r][L::tiles_v][4];
  // pinned fp16: windows where most scores and most outputs lie; bf16 has one for all
  static constexpr int kScoreWindow = PinRange<Format>::bias == 127 ? 0 : -3;
  static constexpr int kValueWindow = PinRange<Format>::bias == 127 ? 0 : -7;

  const FlashTile& tile;
  const Shared& shared;
  Step score_step, value_step;
  InFlight<Format, L> in_flight;
  int stage = 0;
  const uint16_t *k, *v;
  int first_row, column_warp;  // of this warp
  Outputs out = {};

  __device__ FlashBlock(const FlashTile& t, const Shared& s)
      : tile(t),
        shared(s),
        score_step(t.job.unit, kScoreWindow),
        value_step(t.job.unit, kValueWindow),
        k(t.sequence.k + t.kv_head * L::head),
        v(t.sequence.v + t.kv_head * L::head),
        first_row(static_cast<int>(threadIdx.x) / 32 / L::warps_c * L::tiles_r * 16),
        column_warp(threadIdx.x / 32 % L::warps_c) {}

  __device__ void load_queries() const {
    for (int unit = threadIdx.x; unit < L::rows * L::head / 8; unit += L::threads) {
      const int row = unit / (L::head / 8), element = unit % (L::head / 8) * 8;
      const uint16_t* from = tile.sequence.q + tile.packed(row) / tile.job.group * tile.job.q_stride +
                             tile.head_offset(row, L::head) + element;
      shared.queries.template put<Format>(element / kChunk, row, element % kChunk,
                                          *reinterpret_cast<const uint4*>(from), 0);
    }
  }
  /// Asks for the part's keys and values of earlier tokens while kernels ahead still run; these write the newest alone,
  /// and to the same cache.
  __device__ void prefetch() const {
    const int first = tile.item.block_begin * tile.job.block_keys;
    const int last = min(tile.item.block_end * tile.job.block_keys, tile.item.keys);
    for (int key = first + static_cast<int>(threadIdx.x); key < last; key += L::threads) {
#pragma unroll
      for (int element = 0; element < L::head; element += 64) {  // lines of 128 bytes
        asm volatile("prefetch.global.L2 [%0];" ::"l"(k + key * tile.job.k_stride + element));
        asm volatile("prefetch.global.L2 [%0];" ::"l"(v + key * tile.job.v_stride + element));
      }
    }
  }
  __device__ void load_keys(int key, int chunk) {
    in_flight.load_keys(k, tile.job.k_stride, key, tile.item.keys, chunk * kChunk);
  }
  __device__ void load_values(int key) { in_flight.load_values(v, tile.job.v_stride, key, tile.item.keys); }

  /// Chains over `count` k (a multiple of 16): rows of `left` times rows `first_right`... of the stage.
  template <int kTiles>
  __device__ void multiply(const Step& step, float (&c)[L::tiles_r][kTiles][4], const Chunks<Shared::kExponents>& left,
                           int left_chunk, int first_right, int count) const {
#pragma unroll 1
    for (int k0 = 0; k0 < count; k0 += 16) {
#pragma unroll
      for (int at = 0; at < 16; at += step.step()) {
        typename Step::Left a[L::tiles_r];
#pragma unroll
        for (int i = 0; i < L::tiles_r; ++i) a[i] = step.left(left.at(left_chunk, first_row + 16 * i), k0 + at);
#pragma unroll
        for (int j = 0; j < kTiles; ++j) {
          const auto b = step.right(shared.stages.at(stage, first_right + 8 * j), k0 + at);
#pragma unroll
          for (int i = 0; i < L::tiles_r; ++i) step.run(c[i][j], a[i], b);
        }
      }
    }
  }

  /// Scores of a block of keys; `next` loads what comes after the last chunk.
  template <class Next>
  __device__ void scores(int first_key, int most, int padded, const Next& next) {
    for (int first = 0; first < padded; first += L::keys) {
      Accumulators c = {};
      const int column = first + column_warp * L::tiles_c * 8;
      for (int chunk = 0; chunk < L::head_chunks; ++chunk) {
        in_flight.put_keys(shared.stages, stage);
        __syncthreads();
        if (chunk + 1 < L::head_chunks) {
          load_keys(first_key + first, chunk + 1);
        } else if (first + L::keys < padded) {
          load_keys(first_key + first + L::keys, 0);
        } else {
          next();
        }
        if (column < tile.padded(most, first_key)) {
          multiply(score_step, c, shared.queries, chunk, column - first, kChunk);
        }
        stage ^= 1;
      }
      if (column < tile.padded(most, first_key)) store_scores(c, column);
    }
  }
  __device__ void store_scores(const Accumulators& c, int column) const {
    const LaneTile lane;
#pragma unroll
    for (int i = 0; i < L::tiles_r; ++i)
#pragma unroll
      for (int j = 0; j < L::tiles_c; ++j)
#pragma unroll
        for (int q = 0; q < 4; q += 2) {
          float* to =
              shared.scores + (first_row + 16 * i + lane.row(q)) * shared.score_ld + column + 8 * j + lane.column(q);
          *reinterpret_cast<float2*>(to) = float2{c[i][j][q], c[i][j][q + 1]};
        }
  }

  __device__ void softmax(int first_key, const Ex2& ex2) const {
    const RowLane<L::lanes> lane;
    const int padded = tile.padded(tile.most(lane.row), first_key);
    if (padded == 0) return;  // a whole warp: row groups are whole warps
    const int visible = min(tile.visible(lane.row) - first_key, padded);
    softmax_row<Format>(lane, shared.scores + lane.row * shared.score_ld, visible, padded, tile.job.log2_scale, ex2,
                        shared.states, shared.probabilities);
  }

  /// Adds probabilities times values of a block of keys.
  template <class Next>
  __device__ void values(int first_key, int most, int padded, const Next& next) {
    for (int chunk = 0; chunk * kChunk < padded; ++chunk) {
      in_flight.put_values(shared.stages, stage);
      __syncthreads();
      if ((chunk + 1) * kChunk < padded) {
        load_values(first_key + (chunk + 1) * kChunk);
      } else {
        next();
      }
      const int own = tile.padded(most, first_key);
      if (chunk == 0 && own > 0) scale_outputs();
      if (chunk * kChunk < own) {
        multiply(value_step, out, shared.probabilities, chunk, column_warp * L::tiles_v * 8,
                 min(kChunk, own - chunk * kChunk));
      }
      stage ^= 1;
    }
  }
  /// Multiplies by the rows' factors, subnormals flushed before and after.
  __device__ void scale_outputs() {
    const LaneTile lane;
#pragma unroll
    for (int i = 0; i < L::tiles_r; ++i)
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        const float factor = shared.states.factor[first_row + 16 * i + lane.row(q)];
        if (factor == kKeep) continue;
#pragma unroll
        for (int j = 0; j < L::tiles_v; ++j) {
          out[i][j][q] = flush_subnormal(__fmul_rn(flush_subnormal(out[i][j][q]), factor));
        }
      }
  }

  /// Divides by the sums; with several parts, the logarithm of the sum goes to where flash_combine.cu reads it.
  __device__ void normalise() {
    const RowLane<L::lanes> lane;
    __syncthreads();
    if (lane.leads()) {
      const float sum = quad_total(shared.states.sums + 4 * lane.row);
      const FlashJob& job = tile.job;
      const FlashSfu sfu{job.sfu, job.own_unit};
      shared.states.factor[lane.row] = sum == 0.0f ? kKeep : sfu.rcp(sum);  // no visible keys: the output stays 0
      if (tile.sequence.parts > 1 && tile.real(lane.row)) {
        const int64_t at = partial_row(tile.sequence, job.group, tile.kv_head, tile.packed(lane.row), tile.item.part);
        job.log_sums[at] =
            sum == 0.0f ? -INFINITY : flash_log_sum(job.merge, sfu, job.scale, shared.states.largest[lane.row], sum);
      }
    }
    __syncthreads();
    scale_outputs();
  }
  __device__ void store() const {
    const LaneTile lane;
#pragma unroll
    for (int i = 0; i < L::tiles_r; ++i)
#pragma unroll
      for (int q = 0; q < 4; q += 2) {
        const int row = first_row + 16 * i + lane.row(q);
        if (!tile.real(row)) continue;
#pragma unroll
        for (int j = 0; j < L::tiles_v; ++j) {
          store_pair(row, (column_warp * L::tiles_v + j) * 8 + lane.column(q), out[i][j][q], out[i][j][q + 1]);
        }
      }
  }
  __device__ void store_pair(int row, int element, float low, float high) const {
    const FlashJob& job = tile.job;
    const int packed = tile.packed(row);
    if (tile.sequence.parts > 1) {
      const int64_t at = partial_row(tile.sequence, job.group, tile.kv_head, packed, tile.item.part);
      *reinterpret_cast<float2*>(job.partials + at * L::head + element) = float2{low, high};
    } else {
      uint16_t* to = tile.sequence.out + packed / job.group * job.out_stride + tile.head_offset(row, L::head) + element;
      to[0] = static_cast<uint16_t>(narrow_bits<Format>(low));
      to[1] = static_cast<uint16_t>(narrow_bits<Format>(high));
    }
  }

  __device__ void run(const Ex2& ex2) {
    const int most = tile.most(first_row), most_of_all = tile.visible(L::rows - 1), keys = tile.job.block_keys;
    int block = min(tile.item.block_end, (most_of_all + keys - 1) / keys) - 1;
    if (block >= tile.item.block_begin) load_keys(block * keys, 0);
    for (; block >= tile.item.block_begin; --block) {
      const int first_key = block * keys, padded = tile.padded(most_of_all, first_key);
      scores(first_key, most, padded, [&] { load_values(first_key); });
      __syncthreads();
      softmax(first_key, ex2);
      values(first_key, most, padded, [&] {
        if (block > tile.item.block_begin) load_keys(first_key - keys, 0);
      });
    }
    normalise();
    store();
  }
};

template <class Step, class Format, class L>
__global__ void __launch_bounds__(L::threads, 1) flash_kernel(const __grid_constant__ FlashJob job) {
#if __CUDA_ARCH__ < 900
  if constexpr (Step::needs_sixteen) return;  // no such GPU (scheme.h)
#endif
  extern __shared__ __align__(16) char memory[];
  const FlashShared<Step, L> shared(memory, job.block_keys);
  let_next_kernel_start();
  const FlashTile tile(job);
  for (int i = threadIdx.x; i < FlashShared<Step, L>::kPieces; i += L::threads)
    shared.pieces[i] = job.sfu.ex2_curve.pieces[i];
  for (int i = threadIdx.x; i < L::rows * 4; i += L::threads) {
    shared.states.sums[i] = 0.0f;
    if (i < L::rows) shared.states.largest[i] = -INFINITY;
  }
  FlashBlock<Step, Format, L> block(tile, shared);
  if constexpr (L::rows == kFewRows) block.prefetch();
  wait_for_earlier_kernels();
  block.load_queries();
  block.run({{shared.pieces, job.sfu.ex2_curve.carries}, job.own_unit});
}

/// Runs `items` items of the job.
template <class Step, class Format, class L>
void launch_flash(const FlashJob& job, int64_t items, void* stream) {
  auto* kernel = flash_kernel<Step, Format, L>;
  const int bytes = FlashShared<Step, L>::bytes(job.block_keys);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
        "shared memory of flash attention");
  launch(
      kernel,
      {dim3(static_cast<unsigned>(items * job.kv_heads)), dim3(L::threads), static_cast<size_t>(bytes), job.overlapped},
      stream, "flash attention", job);
}

template <class Step, class Format>
void launch_flash(const FlashJob& job, int head_size, bool few_rows, int64_t items, void* stream) {
  if (head_size == 64) {
    if (few_rows) return launch_flash<Step, Format, FewRows<64>>(job, items, stream);
    return launch_flash<Step, Format, ManyRows<64>>(job, items, stream);
  }
  if (few_rows) return launch_flash<Step, Format, FewRows<128>>(job, items, stream);
  launch_flash<Step, Format, ManyRows<128>>(job, items, stream);
}

}  // namespace qf::cuda
