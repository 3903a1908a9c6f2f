// One walk over all of K per output (cuBLAS without splitK, awq from 256 rows): codes become numbers in memory, then a
// GEMM of Hopper's warpgroup instructions. A tile's shape is free: every output has one accumulator, from +0, k
// ascending.
#include "base/cuda/overlap.cuh"
#include "kernels/native/load.cuh"
#include "kernels/native/native_kernels.h"
#include "kernels/native/one_walk_rows.cuh"
#include "kernels/native/wgmma.cuh"

namespace qf::cuda {
namespace {

constexpr int kRows = 128, kDepth = 64, kThreads = 256;

/// A thread's part of an operand's tiles of kCount rows and 64 k: one cell of 8 k of every 32nd row.
template <int kCount>
class TileCopy {
 public:
  /// Rows beyond the end repeat the last.
  __device__ TileCopy(const uint16_t* operand, int64_t ld, int first, int rows)
      : cell_(static_cast<int>(threadIdx.x) % 8), to_(swizzled(static_cast<int>(threadIdx.x) / 8, cell_)) {
#pragma unroll
    for (int i = 0; i < kCount / 32; ++i) {
      const int row = min(first + static_cast<int>(threadIdx.x) / 8 + 32 * i, rows - 1);
      from_[i] = operand + row * ld + cell_ * 8;
    }
  }
  /// k .. k + 63 into a swizzled tile; zeros beyond K.
  __device__ void copy(char* tile, int k, int end) const {
    const int bytes = k + cell_ * 8 < end ? 16 : 0, at = bytes > 0 ? k : -cell_ * 8;
#pragma unroll
    for (int i = 0; i < kCount / 32; ++i) copy_past_cache(tile + to_ + i * 32 * 128, from_[i] + at, bytes);
  }

 private:
  int cell_, to_;
  const uint16_t* from_[kCount / 32];
};

template <int kColumns>
constexpr int kStageBytes = (kRows + kColumns) * kDepth * 2;
template <int kColumns>
constexpr int kStages = kColumns == 256 ? 4 : 6;

/// A block takes 128 rows and kColumns columns; each of its two warpgroups 64 of the rows.
template <class Number, int kColumns>
__global__ void __launch_bounds__(kThreads) one_walk_gemm(const OneWalkArgs args) {
  extern __shared__ __align__(1024) char shared[];
  const int first_row = static_cast<int>(blockIdx.x) * kRows, first_column = static_cast<int>(blockIdx.y) * kColumns;
  const int group = static_cast<int>(threadIdx.x) / 128, rounds = (args.k + kDepth - 1) / kDepth;
  const TileCopy<kRows> rows(args.activations, args.lda, first_row, args.m);
  const TileCopy<kColumns> columns(args.weight, args.ldw, first_column, args.n);
  constexpr int stages = kStages<kColumns>;
  const auto fill = [&](int round) {
    if (round < rounds) {
      char* stage = shared + round % stages * kStageBytes<kColumns>;
      rows.copy(stage, round * kDepth, args.k);
      columns.copy(stage + kRows * kDepth * 2, round * kDepth, args.k);
    }
    asm volatile("cp.async.commit_group;");
  };
  float sum[kColumns / 2] = {};
  wait_for_earlier_kernels();
#pragma unroll
  for (int i = 0; i < stages - 2; ++i) fill(i);
  for (int round = 0; round < rounds; ++round) {
    asm volatile("cp.async.wait_group %0;" ::"n"(stages - 3) : "memory");
    publish_to_wgmma();
    __syncthreads();  // the round's tiles are there, and nobody reads those of the round before the last
    const char* stage = shared + round % stages * kStageBytes<kColumns>;
    const uint64_t a = tile_descriptor(stage + group * 64 * kDepth * 2);
    const uint64_t b = tile_descriptor(stage + kRows * kDepth * 2);
    wgmma_begin();
#pragma unroll
    for (int step = 0; step < kDepth / 16; ++step) {  // steps beyond K are of zeros: they leave a sum as it is
      wgmma(Number{}, sum, a + step * kNext16, b + step * kNext16);
    }
    wgmma_end();
    fill(round + stages - 2);
    wgmma_wait<1>();
  }
  wgmma_wait<0>();
  let_next_kernel_start();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = first_row + group * 64 + static_cast<int>(threadIdx.x) / 32 % 4 * 16 + lane / 4;
#pragma unroll
  for (int i = 0; i < kColumns / 4; ++i) {
    const int out_row = row + i % 2 * 8, column = first_column + i / 2 * 8 + lane % 4 * 2;
    if (out_row >= args.m || column >= args.n) continue;
    uint16_t* to = args.out + out_row * args.ldo + column;
    to[0] = finished(args, sum[2 * i], column);
    if (column + 1 < args.n) to[1] = finished(args, sum[2 * i + 1], column + 1);
  }
}

struct CodeView {
  const uint8_t *codes, *zeros;
  const uint16_t* scales;
  int n, k, group, groups;
  int64_t panels;
  Format format;
};

/// RN((q - z) * s) as [n][k]. A thread makes 16 k of columns g and g + 8 of a panel.
__global__ void dequantize_codes(const CodeView view, int64_t ld, uint16_t* out) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  const int stretches = (view.k + 15) / 16, g = static_cast<int>(i % 8), k = static_cast<int>(i / 8 % stretches) * 16;
  const int64_t panel = i / 8 / stretches;
  wait_for_earlier_kernels();
  if (panel >= view.panels) return;
  uint4 words[2][2];
#pragma unroll
  for (int side = 0; side < 2; ++side) {
    uint16_t* bits = reinterpret_cast<uint16_t*>(words[side]);
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      bits[j] = 0;
      if (k + j >= view.k) continue;
      const uint8_t pair = view.codes[(panel * view.k + k + j) * 8 + g];
      const int64_t at = (panel * view.groups + (k + j) / view.group) * kPanelWidth + g + side * 8;
      const float code = static_cast<float>(side == 0 ? pair & 15 : pair >> 4);
      const float number = (code - static_cast<float>(view.zeros[at])) * widened(view.format, view.scales[at]);
      bits[j] = view.format == Format::bf16 ? bf16_bits(number) : half_bits(number);
    }
    const int64_t column = panel * kPanelWidth + g + side * 8;
    if (column >= view.n) continue;
    uint4* to = reinterpret_cast<uint4*>(out + column * ld + k);
    to[0] = words[side][0];
    if (k + 8 < ld) to[1] = words[side][1];
  }
}

/// Dense weights as [n][k], from panels.
__global__ void unpack_dense(const uint16_t* panels, int n, int k, int64_t ld, uint16_t* out) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  const int64_t column = i / ld, at = i % ld;
  if (column >= n) return;
  out[i] = at < k ? panels[(column / kPanelWidth * k + at) * kPanelWidth + column % kPanelWidth] : uint16_t{0};
}

int64_t row_length(int64_t k) { return (k + 7) / 8 * 8; }
unsigned blocks_of(int64_t threads) { return static_cast<unsigned>((threads + 255) / 256); }

class OneWalkCall : public NativeCall {
 public:
  OneWalkCall(const Plan& plan, const Gpu& gpu) : plan_(plan), sm_count_(gpu.sm_count) {}

  /// Codes as numbers.
  NativeScratch scratch() const override {
    return {0, plan_.weight == WeightRule::dense ? 0 : static_cast<size_t>(plan_.n * row_length(plan_.k)) * 2};
  }
  void run(const NativeWeight& weight, const GemmArgs& args, const NativeContext& context) const override {
    check_native_call(plan_, weight, args);
    OneWalkArgs all{.activations = static_cast<const uint16_t*>(args.activations),
                    .weight = reinterpret_cast<const uint16_t*>(weight.codes.data()),
                    .bias = static_cast<const uint16_t*>(args.bias),
                    .out = static_cast<uint16_t*>(args.out),
                    .lda = args.lda,
                    .ldw = row_length(plan_.k),
                    .ldo = args.ldo,
                    .m = static_cast<int>(plan_.m),
                    .n = static_cast<int>(plan_.n),
                    .k = static_cast<int>(plan_.k),
                    .format = plan_.activations,
                    .bias_before_rounding = plan_.epilogue.bias == BiasRule::before_rounding};
    if (plan_.weight != WeightRule::dense) all.weight = numbers(weight, context);
    const bool bf16 = plan_.activations == Format::bf16;
    if (plan_.weight == WeightRule::dense && takes_few_rows(all)) {
      return bf16 ? launch_few_rows<Bf16>(all, sm_count_, context.stream)
                  : launch_few_rows<Fp16>(all, sm_count_, context.stream);
    }
    const int64_t wide_blocks = (plan_.m + kRows - 1) / kRows * ((plan_.n + 255) / 256);
    if (wide_blocks >= sm_count_) {
      return bf16 ? launch_gemm<Bf16, 256>(all, context) : launch_gemm<Fp16, 256>(all, context);
    }
    bf16 ? launch_gemm<Bf16, 128>(all, context) : launch_gemm<Fp16, 128>(all, context);
  }

 private:
  const uint16_t* numbers(const NativeWeight& weight, const NativeContext& context) const {
    auto* out = static_cast<uint16_t*>(context.free);
    const auto* scales = reinterpret_cast<const uint16_t*>(weight.numbers.data());
    const int64_t panels = (plan_.n + kPanelWidth - 1) / kPanelWidth, groups = plan_.k / plan_.group;
    const CodeView view{.codes = reinterpret_cast<const uint8_t*>(weight.codes.data()),
                        .zeros = reinterpret_cast<const uint8_t*>(scales + panels * groups * kPanelWidth),
                        .scales = scales,
                        .n = static_cast<int>(plan_.n),
                        .k = static_cast<int>(plan_.k),
                        .group = static_cast<int>(plan_.group),
                        .groups = static_cast<int>(groups),
                        .panels = panels,
                        .format = plan_.activations};
    const int64_t threads = panels * ((plan_.k + 15) / 16) * 8;
    launch(dequantize_codes, {dim3(blocks_of(threads)), dim3(256), 0, true}, context.stream, "dequantize_codes", view,
           row_length(plan_.k), out);
    return out;
  }
  template <class Number, int kColumns>
  void launch_gemm(const OneWalkArgs& args, const NativeContext& context) const {
    auto* kernel = one_walk_gemm<Number, kColumns>;
    constexpr int bytes = kStageBytes<kColumns> * kStages<kColumns>;
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
          "shared memory of one_walk");
    const dim3 grid(static_cast<unsigned>((args.m + kRows - 1) / kRows),
                    static_cast<unsigned>((args.n + kColumns - 1) / kColumns));
    launch(kernel, {grid, dim3(kThreads), bytes, true}, context.stream, "one_walk_gemm", args);
  }

  Plan plan_;
  int sm_count_;
};

}  // namespace

std::string refuse_one_walk(const Plan& plan, int compute_capability) {
  if (compute_capability != 90) return "needs compute capability 9.0";
  if (plan.step != StepRule::matrix_unit || plan.unit.rounding != Rounding::fp32_toward_zero) return "takes fp32 sums";
  const bool bf16 = plan.activations == Format::bf16;
  if (plan.activations == Format::fp32 || plan.epilogue.output != plan.activations) return "takes fp16 or bf16";
  if (plan.weight != WeightRule::dense && plan.weight != (bf16 ? WeightRule::bf16_sub_mul : WeightRule::fp16_sub_mul)) {
    return "takes numbers, or codes that become RN((q - z) * s)";
  }
  if (plan.trees.size() != 1 || plan.regions.size() != 1 || !same_tree(plan.trees[0], single_walk(plan.k))) {
    return "the plan adds in another order";
  }
  if (plan.epilogue.channel_scale || plan.epilogue.bias == BiasRule::fused_scale) return "takes scales inside the sum";
  if (plan.k % 8 != 0) return "takes K of a multiple of 8";
  if (plan.n > (1 << 22) || plan.m > (1 << 24)) return "takes N up to 2^22";
  return refuse_unit(plan, compute_capability);
}

NativeWeight pack_one_walk(const Plan& plan, const DeviceWeight& weight, const Allocator& allocator, void* stream) {
  require(weight.is_dense() == (plan.weight == WeightRule::dense), plan.kernel, ": the plan wants ",
          weight_rule_text(plan.weight));
  require(weight.order.size() == 0 && weight.offsets.size() == 0 && weight.wide.size() == 0, plan.kernel,
          ": the native kernel takes no act-order, float offsets or fp32 numbers");
  require(weight.n == plan.n && weight.k == plan.k && weight.format == plan.activations, plan.kernel,
          ": the weight is not the plan's");
  const auto s = static_cast<cudaStream_t>(stream);
  NativeWeight out;
  out.n = weight.n, out.k = weight.k, out.group = plan.group;
  if (weight.is_dense()) {
    const int64_t ld = row_length(weight.k);
    out.codes = Buffer<uint32_t>(allocator, static_cast<size_t>(weight.n * ld / 2), stream);
    unpack_dense<<<blocks_of(weight.n * ld), 256, 0, s>>>(weight.dense.data(), static_cast<int>(weight.n),
                                                          static_cast<int>(weight.k), ld,
                                                          reinterpret_cast<uint16_t*>(out.codes.data()));
    check_launch("unpack_dense");
  } else {  // codes as they are; scales, then zero points
    require(weight.group == plan.group, plan.kernel, ": the weight is not the plan's");
    const auto copy = [&](void* to, const auto& from) {
      check(cudaMemcpyAsync(to, from.data(), from.bytes(), cudaMemcpyDeviceToDevice, s), "copy of a weight");
    };
    out.codes = Buffer<uint32_t>(allocator, weight.codes.size() / 4, stream);
    out.numbers = Buffer<uint32_t>(allocator, (weight.scales.bytes() + weight.zeros.bytes()) / 4, stream);
    copy(out.codes.data(), weight.codes);
    copy(out.numbers.data(), weight.scales);
    copy(reinterpret_cast<char*>(out.numbers.data()) + weight.scales.bytes(), weight.zeros);
  }
  check(cudaStreamSynchronize(s), "pack_one_walk");
  return out;
}

std::unique_ptr<NativeCall> prepare_one_walk(const Plan& plan, const Gpu& gpu, const Allocator&, void*) {
  return std::make_unique<OneWalkCall>(plan, gpu);
}

}  // namespace qf::cuda
