// Leaves whose steps are those of a matrix unit. Weights are the left operand (16 columns of the output per tile), rows
// of activations the right one (8 per tile), so that a single row wastes 7 of 8 columns and not 15 of 16 rows.
//
// Included by unit_leaves_<scheme>.cu: one file per scheme, so that they compile side by side.
#pragma once

#include "base/cuda/check.h"
#include "kernels/emulate/cuda/leaf_job.cuh"
#include "kernels/emulate/cuda/unit_leaves.h"
#include "numerics/cuda/step_schemes.cuh"

namespace qf::cuda {

__device__ __forceinline__ void copy_16_bytes(void* shared, const void* global) {
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global));
}

/// Shared memory of one chunk: values, then exponents, of the weights' rows, then of the activations'.
template <class L, bool kExponents>
struct Stage {
  static constexpr int kOperandRows = L::columns + L::rows;
  static constexpr int kBytes = kOperandRows * kLd * 2 * (kExponents ? 2 : 1);
  uint16_t* value;
  int16_t* exponent;

  __device__ Stage(char* base, int index)
      : value(reinterpret_cast<uint16_t*>(base + index * kBytes)),
        exponent(reinterpret_cast<int16_t*>(value + kOperandRows * kLd)) {}

  __device__ void fill(const Operand& operand, int first_shared, int count, int first, int64_t k) const {
    for (int i = threadIdx.x; i < count * 4; i += L::threads) {
      const int row = i / 4, quarter = i % 4, at = (first_shared + row) * kLd + quarter * 8;
      // rows beyond the end repeat row 0: nobody reads their outputs, and they leave the fast path no more often than
      // it
      const int64_t from = (first + row < operand.rows ? first + row : 0) * operand.ld + k + quarter * 8;
      copy_16_bytes(value + at, operand.value + from);
      if constexpr (kExponents) copy_16_bytes(exponent + at, operand.exponent + from);
    }
  }
  __device__ Rows rows(int first) const { return {value + first * kLd, exponent + first * kLd}; }
};

template <class Scheme, class L, bool kFresh>
struct Walker {
  const Scheme& scheme;
  float (&c)[L::tiles_w][L::tiles_r][4];

  __device__ void steps(const Stage<L, Scheme::uses_exponents>& stage, int first_w, int first_r, int k) const {
#pragma unroll
    for (int step = 0; step < 16; step += scheme.step()) {
      typename Scheme::Left left[L::tiles_w];
#pragma unroll
      for (int i = 0; i < L::tiles_w; ++i) left[i] = scheme.left(stage.rows(first_w + 16 * i), k + step);
#pragma unroll
      for (int j = 0; j < L::tiles_r; ++j) {
        const auto right = scheme.right(stage.rows(L::columns + first_r + 8 * j), k + step);
#pragma unroll
        for (int i = 0; i < L::tiles_w; ++i) scheme.run(c[i][j], left[i], right);
      }
    }
  }
  /// Every 16 k from +0, then added in fp32.
  __device__ void fresh_steps(const Stage<L, Scheme::uses_exponents>& stage, int first_w, int first_r, int k) const {
    float before[L::tiles_w][L::tiles_r][4];
    for_each([&](int i, int j, int q) {
      before[i][j][q] = c[i][j][q];
      c[i][j][q] = 0.0f;
    });
    steps(stage, first_w, first_r, k);
    for_each([&](int i, int j, int q) { c[i][j][q] = __fadd_rn(before[i][j][q], c[i][j][q]); });
  }
  template <class Body>
  __device__ static void for_each(Body body) {
#pragma unroll
    for (int i = 0; i < L::tiles_w; ++i)
#pragma unroll
      for (int j = 0; j < L::tiles_r; ++j)
#pragma unroll
        for (int q = 0; q < 4; ++q) body(i, j, q);
  }
};

template <class Scheme, class L, bool kFresh>
__global__ void __launch_bounds__(L::threads, L::tiles_w == 2 ? Scheme::blocks : 2)
    unit_leaf_kernel(const UnitArgs args) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
  if constexpr (Scheme::needs_sixteen) return;  // no such GPU (scheme.h)
#endif
  extern __shared__ __align__(16) char shared[];
  using S = Stage<L, Scheme::uses_exponents>;
  const LeafJob job = find_job(args.tables, blockIdx.x);
  const Scheme scheme(args.unit);
  const int warp = threadIdx.x / 32;
  const int first_w = warp % L::warps_w * L::tiles_w * 16, first_r = warp / L::warps_w * L::tiles_r * 8;
  float c[L::tiles_w][L::tiles_r][4] = {};

  const int count = static_cast<int>(job.chunk_end - job.chunk);
  const auto fill = [&](int index) {
    if (index < count) {
      const S stage(shared, index % L::stages);
      const int64_t k = job.chunk[index].start;
      stage.fill(args.weight, 0, L::columns, job.column, k);
      stage.fill(args.activations, L::columns, L::rows, job.row - args.first_row, k);
    }
    asm volatile("cp.async.commit_group;");
  };
  for (int i = 0; i < L::stages - 1; ++i) fill(i);
  const Walker<Scheme, L, kFresh> walker{scheme, c};
  for (int i = 0; i < count; ++i) {
    asm volatile("cp.async.wait_group %0;" ::"n"(L::stages - 2));
    __syncthreads();  // chunk i is there for all, and nobody reads chunk i - 1 any more
    fill(i + L::stages - 1);
    const S stage(shared, i % L::stages);
    for (int k = 0; k < job.chunk[i].length; k += 16) {
      if constexpr (kFresh) {
        walker.fresh_steps(stage, first_w, first_r, k);
      } else {
        walker.steps(stage, first_w, first_r, k);
      }
    }
  }
  const LaneTile lane;
  Walker<Scheme, L, kFresh>::for_each([&](int i, int j, int q) {
    job.store(job.row + first_r + 8 * j + lane.column(q), job.column + first_w + 16 * i + lane.row(q), c[i][j][q]);
  });
}

template <class Scheme, class L, bool kFresh>
void launch(const UnitArgs& args, int64_t blocks, void* stream) {
  auto* kernel = unit_leaf_kernel<Scheme, L, kFresh>;
  constexpr int bytes = Stage<L, Scheme::uses_exponents>::kBytes * L::stages;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
        "shared memory of unit_leaves");
  kernel<<<static_cast<unsigned>(blocks), L::threads, bytes, static_cast<cudaStream_t>(stream)>>>(args);
  check_launch("unit_leaves");
}

template <class Scheme, bool kFresh>
void launch_layout(const UnitArgs& args, int64_t blocks, void* stream) {
  switch (args.tables.tile.rows) {
    case OneRow::rows: return launch<Scheme, OneRow, kFresh>(args, blocks, stream);
    case FewRows::rows: return launch<Scheme, FewRows, kFresh>(args, blocks, stream);
    default: return launch<Scheme, ManyRows, kFresh>(args, blocks, stream);
  }
}

/// Fresh accumulators belong to tinygemm alone, which is bf16.
template <class Scheme>
void launch_scheme(const UnitLeaves& call) {
  constexpr bool bf16 = PinRange<typename Scheme::Number>::bias == 127;
  if constexpr (bf16) {
    if (call.fresh) return launch_layout<Scheme, true>(call.args, call.blocks, call.stream);
  }
  require(!call.fresh, "fresh accumulators of fp16 have no kernel");
  launch_layout<Scheme, false>(call.args, call.blocks, call.stream);
}

}  // namespace qf::cuda
