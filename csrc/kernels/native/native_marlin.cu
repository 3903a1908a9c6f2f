// The Marlin family, native: plans of striped trees on 4-bit weights, on Hopper and later. What is computed in which
// order is the plan's; how: marlin_schedule.h (who does what), marlin_layout.h (weights), marlin_block.cuh (pipeline),
// marlin_dequantize.cuh, marlin_walk.cuh (steps), marlin_reduce.cuh (sums and outputs).
#include <algorithm>
#include <bit>

#include "base/cuda/check.h"
#include "base/error.h"
#include "kernels/native/marlin_kernel.h"
#include "kernels/native/marlin_layout.h"
#include "kernels/native/native_kernels.h"
#include "kernels/native/tensor_map.h"

namespace qf::cuda {
namespace {

__device__ int code_at(const uint8_t* codes, int64_t panel_row, int column) {
  const int pair = codes[panel_row * 8 + column % 8];
  return column < 8 ? pair & 15 : pair >> 4;
}

/// One word per thread.
__global__ void pack_codes(const uint8_t* codes, int64_t k, int64_t strips, int64_t words, uint32_t* out) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < words; i += int64_t{gridDim.x} * blockDim.x) {
    const int step = static_cast<int>(i & 1), lane = static_cast<int>(i >> 1 & 31);
    const int64_t strip = i / kChunkWords % strips, chunk = i / kChunkWords / strips;
    const int64_t row = strip * k + chunk * kChunkK + 16 * step + 2 * (lane & 3);
    const int g = lane >> 2;
    uint32_t word = 0;
    for (int odd = 0; odd < 2; ++odd) {
      for (int j = 0; j < 4; ++j) {
        const int code = code_at(codes, row + odd + (j & 2) * 4, g + (j & 1) * 8);
        word |= static_cast<uint32_t>(code) << (4 * j + 16 * odd);
      }
    }
    out[i] = word;
  }
}

struct NumbersSource {
  const uint8_t* zeros;
  const uint16_t* scales;
  int64_t groups, strips;
  int units, zero_shift;
  uint32_t one;  // not 0: every scale is one
};

/// One strip and group per thread.
__global__ void pack_numbers(const NumbersSource from, uint32_t* out) {
  const int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (i >= from.groups * from.strips) return;
  const int64_t strip = i % from.strips, group = i / from.strips;
  const int64_t at = (strip * from.groups + group) * kStripColumns;
  uint32_t* words = out + i * from.units * 4;
  for (int g = 0; g < 8; ++g) {
    const uint32_t scales = from.scales[at + g] | static_cast<uint32_t>(from.scales[at + g + 8]) << 16;
    words[g] = from.one != 0 ? from.one : scales;
    if (from.units > kScaleUnits) {
      reinterpret_cast<uint16_t*>(words + kScaleUnits * 4)[g] =
          static_cast<uint16_t>(from.zeros[at + g] | from.zeros[at + g + 8] << (8 + from.zero_shift));
    }
  }
}

bool all_eight(const DeviceWeight& weight, void* stream) {
  std::vector<uint8_t> zeros(weight.zeros.size());
  copy_to_host(zeros.data(), weight.zeros.data(), zeros.size(), stream);
  return std::all_of(zeros.begin(), zeros.end(), [](uint8_t z) { return z == 8; });
}

/// Of the numbers: groups, and a row of ones before the channels' scales.
int number_rows(const Plan& plan) {
  return static_cast<int>(plan.k / plan.group) + (plan.weight == WeightRule::integer ? 1 : 0);
}

int log2_of(int power) { return std::countr_zero(static_cast<unsigned>(power)); }

class MarlinCall final : public NativeCall {
 public:
  MarlinCall(const Plan& plan, const Gpu& gpu, const Allocator& allocator, void* stream) : plan_(plan) {
    const std::string why = read_striped_plan(plan, &striped_);
    require(why.empty(), plan.kernel, ": ", why);
    MarlinLimits limits{gpu.sm_count, 0};
    check(cudaDeviceGetAttribute(&limits.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, gpu.index),
          "shared memory per block");
    for (const StripedLaunch& launch : striped_.launches) {
      const MarlinShape shape = choose_marlin_shape(plan, launch, limits);
      (plan.activations == Format::fp16 ? prepare_marlin_fp16 : prepare_marlin_bf16)(shape, limits.shared_bytes - 1024);
      shapes_.push_back(shape);
      if (!shape.leaves_apart) continue;
      const size_t blocks = static_cast<size_t>(shape.groups) * shape.cluster * launch.block_count;
      leaf_bytes_ = std::max(leaf_bytes_, blocks * static_cast<size_t>(shape.leaf_floats) * sizeof(float));
    }
    const auto copy = [&](const auto& host) { return upload(allocator, host.data(), host.size(), stream); };
    row_blocks_ = copy(striped_.row_blocks);
    cut_begin_ = copy(striped_.cut_begin);
    cuts_ = copy(striped_.cuts);
    check(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)), "upload of a plan");
  }

  NativeScratch scratch() const override { return {0, leaf_bytes_}; }

  void run(const NativeWeight& weight, const GemmArgs& args, const NativeContext& context) const override {
    check_native_call(plan_, weight, args);
    require(reinterpret_cast<uintptr_t>(args.activations) % 16 == 0 && args.lda % 8 == 0,
            "marlin: rows of activations must lie at multiples of 16 bytes");
    require(reinterpret_cast<uintptr_t>(args.out) % 8 == 0 && args.ldo % 4 == 0,
            "marlin: rows of the output must lie at multiples of 8 bytes");
    for (size_t i = 0; i < shapes_.size(); ++i) {
      const MarlinArgs all = arguments(i, weight, args, context);
      const MarlinLaunch launch{all, maps(i, all, weight, args), striped_.launches[i].block_count,
                                static_cast<cudaStream_t>(context.stream)};
      (plan_.activations == Format::fp16 ? launch_marlin_fp16 : launch_marlin_bf16)(launch);
    }
  }

 private:
  MarlinArgs arguments(size_t i, const NativeWeight& weight, const GemmArgs& args, const NativeContext& context) const {
    const StripedLaunch& launch = striped_.launches[i];
    const MarlinShape& shape = shapes_[i];
    const int strips = static_cast<int>(plan_.n) / kStripColumns, k = static_cast<int>(plan_.k);
    const int units = strips / shape.strip_tiles, tile_k = launch.warp_rows * kChunkK;
    const int number_units = static_cast<int>(weight.numbers.size()) / (number_rows(plan_) * strips * 4);
    const bool one_group = plan_.group == plan_.k;
    MarlinStage stage = marlin_stage(plan_, launch, shape, shape.stage_k);
    const int stage_groups = one_group ? 1 : shape.stage_k / static_cast<int>(plan_.group);
    stage.weight_bytes = stage.numbers_at - stage.codes_at + stage_groups * shape.group_strips * number_units * 16;
    return {.channel_scales = weight.numbers.data() + static_cast<int64_t>(strips) * number_units * 4,
            .bias = args.bias,
            .out = args.out,
            .leaves = shape.leaves_apart ? static_cast<float*>(context.free) : nullptr,
            .row_blocks = row_blocks_.data() + launch.first_block,
            .cut_begin = cut_begin_.data() + static_cast<int64_t>(launch.first_block) * strips,
            .cuts = cuts_.data(),
            .ldo = args.ldo,
            .epilogue = plan_.epilogue,
            .hop = striped_.hop,
            .shape = shape,
            .stage = stage,
            .strips = strips,
            .units = units,
            .group_units = units / shape.groups,
            .k_tiles = k / tile_k,
            .tile_k = tile_k,
            .stage_tiles = shape.stage_k / tile_k,
            .stage_count = (k + shape.stage_k - 1) / shape.stage_k,
            .stage_groups = one_group ? 0 : stage_groups,
            .classes = launch.warp_rows / shape.cluster,
            .group_shift = one_group ? 31 : log2_of(static_cast<int>(plan_.group)),
            .number_units = number_units};
  }
  MarlinMaps maps(size_t i, const MarlinArgs& all, const NativeWeight& weight, const GemmArgs& args) const {
    const auto strips = static_cast<cuuint64_t>(all.strips), warp_rows = static_cast<cuuint64_t>(all.tile_k / kChunkK);
    const auto tiles = static_cast<cuuint64_t>(all.k_tiles);
    const auto classes = static_cast<cuuint32_t>(all.classes), stage_tiles = static_cast<cuuint32_t>(all.stage_tiles);
    const auto columns = static_cast<cuuint32_t>(all.shape.group_strips);
    const auto words = static_cast<cuuint32_t>(all.number_units * 4);
    const CopyArray activations{CU_TENSOR_MAP_DATA_TYPE_UINT16,
                                args.activations,
                                {kChunkK, static_cast<cuuint64_t>(plan_.m), warp_rows, tiles},
                                {static_cast<cuuint64_t>(args.lda) * 2, kChunkK * 2, warp_rows * kChunkK * 2},
                                {kChunkK, static_cast<cuuint32_t>(padded_rows(shapes_[i])), classes, stage_tiles},
                                CU_TENSOR_MAP_SWIZZLE_64B};
    const CopyArray codes{CU_TENSOR_MAP_DATA_TYPE_UINT32,
                          weight.codes.data(),
                          {kChunkWords, strips, warp_rows, tiles},
                          {kChunkBytes, strips * kChunkBytes, warp_rows * strips * kChunkBytes},
                          {kChunkWords, columns, classes, stage_tiles},
                          CU_TENSOR_MAP_SWIZZLE_NONE};
    const CopyArray numbers{CU_TENSOR_MAP_DATA_TYPE_UINT32,
                            weight.numbers.data(),
                            {words, strips, static_cast<cuuint64_t>(number_rows(plan_))},
                            {words * 4, strips * words * 4},
                            {words, columns, static_cast<cuuint32_t>(std::max(1, all.stage_groups))},
                            CU_TENSOR_MAP_SWIZZLE_NONE};
    return {tensor_map(activations), tensor_map(codes), tensor_map(numbers)};
  }

  Plan plan_;
  StripedPlan striped_;
  std::vector<MarlinShape> shapes_;
  size_t leaf_bytes_ = 0;
  Buffer<RowBlock> row_blocks_;
  Buffer<int32_t> cut_begin_, cuts_;
};

}  // namespace

std::string refuse_marlin(const Plan& plan, int compute_capability) {
  const WeightRule rounded = plan.activations == Format::fp16 ? WeightRule::fp16_sub_mul : WeightRule::bf16_sub_mul;
  if (plan.activations == Format::fp32 || plan.epilogue.output != plan.activations) return "takes fp16 or bf16";
  if (plan.step != StepRule::matrix_unit) return "its steps are " + std::string(step_rule_text(plan.step));
  if (plan.weight != rounded && plan.weight != WeightRule::integer) {
    return "its weights are " + std::string(weight_rule_text(plan.weight));
  }
  if (plan.group != plan.k && plan.group != 32 && plan.group != 64 && plan.group != 128) {
    return "takes groups of 32, 64, 128 or all of K, the plan's are " + std::to_string(plan.group);
  }
  if (plan.epilogue.channel_scale != (plan.weight == WeightRule::integer)) return "integer weights need a later scale";
  if (plan.file_order) return "weights enter in the checkpoint's order";
  const std::string unit = refuse_unit(plan, compute_capability);
  return unit.empty() ? read_striped_plan(plan, nullptr) : unit;
}

NativeWeight pack_marlin(const Plan& plan, const DeviceWeight& weight, const Allocator& allocator, void* stream) {
  require(!weight.is_dense() && weight.offsets.size() == 0, "marlin: takes 4-bit codes without offsets");
  require(weight.order.size() == 0, "marlin: act-order is not served natively; executor 'cuda' does");
  require(weight.n == plan.n && weight.k == plan.k && weight.group == plan.group && weight.format == plan.activations,
          "marlin: the weight is not the plan's");
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  constexpr int kThreads = 256;
  const int64_t strips = weight.n / kStripColumns, pairs = strips * weight.groups();
  const int units = kScaleUnits + (all_eight(weight, stream) ? 0 : 1);
  NativeWeight out;
  out.n = weight.n, out.k = weight.k, out.group = weight.group;
  out.codes = Buffer<uint32_t>(allocator, static_cast<size_t>(weight.k / 8 * weight.n), stream);
  out.numbers = Buffer<uint32_t>(allocator, static_cast<size_t>(number_rows(plan) * strips * units * 4), stream);
  const auto words = static_cast<int64_t>(out.codes.size());
  const auto blocks = static_cast<unsigned>(std::min<int64_t>((words + kThreads - 1) / kThreads, 1 << 20));
  pack_codes<<<blocks, kThreads, 0, cuda_stream>>>(weight.codes.data(), weight.k, strips, words, out.codes.data());
  check_launch("pack_codes");
  const bool fp16 = weight.format == Format::fp16;
  NumbersSource numbers{
      weight.zeros.data(), weight.scales.data(), weight.groups(), strips, units, fp16 ? kUpperZeroShift : 0, 0};
  uint32_t* to = out.numbers.data();
  const auto number_blocks = static_cast<unsigned>((pairs + kThreads - 1) / kThreads);
  if (plan.weight == WeightRule::integer) {
    numbers.one = fp16 ? 0x3C003C00u : 0x3F803F80u;
    pack_numbers<<<number_blocks, kThreads, 0, cuda_stream>>>(numbers, to);
    numbers.one = 0;
    to += pairs * units * 4;
  }
  pack_numbers<<<number_blocks, kThreads, 0, cuda_stream>>>(numbers, to);
  check_launch("pack_numbers");
  check(cudaStreamSynchronize(cuda_stream), "pack_marlin");
  return out;
}

std::unique_ptr<NativeCall> prepare_marlin(const Plan& plan, const Gpu& gpu, const Allocator& allocator, void* stream) {
  return std::make_unique<MarlinCall>(plan, gpu, allocator, stream);
}

}  // namespace qf::cuda
