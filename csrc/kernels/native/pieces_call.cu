#include "kernels/native/pieces_call.h"

#include <algorithm>

#include "base/cuda/check.h"
#include "base/error.h"
#include "kernels/native/pieces_kernel.h"
#include "kernels/native/tensor_map.h"

namespace qf::cuda {
namespace {

constexpr int kMostStages = 16, kAlignment = 1024;
constexpr int kStaticBytes = 512;                    // barriers
constexpr int kReservedBytes = kStaticBytes + 1024;  // and what the runtime keeps for itself per block

/// The kernels of one kind of sums.
struct PiecesKernels {
  void (*prepare)(const PiecesShape&, int);
  void (*launch)(const PiecesLaunch&);
};

PiecesKernels kernels_of(Format format, bool half_sums) {
  if (half_sums) return {prepare_pieces_fp16_sums, launch_pieces_fp16_sums};
  return format == Format::bf16 ? PiecesKernels{prepare_pieces_bf16, launch_pieces_bf16}
                                : PiecesKernels{prepare_pieces_fp16, launch_pieces_fp16};
}

PiecesStage stage_of(const PiecesShape& shape, int number_words) {
  const int codes = shape.rows * kPieceTileK * 2, strips = shape.columns() / kPieceStripColumns;
  const int numbers = codes + strips * kStripWords * 4, end = numbers + strips * number_words * 4;
  return {codes, numbers, (end + 1023) / 1024 * 1024};
}

class PiecesCall final : public NativeCall {
 public:
  PiecesCall(const Plan& plan, Narrow narrow, const Gpu& gpu, const Allocator& allocator, void* stream)
      : plan_(plan), kernels_(kernels_of(plan.activations, narrow == Narrow::fp16)) {
    std::vector<PieceRegion> regions;
    const std::string why = read_pieces_plan(plan, narrow, &regions);
    require(why.empty(), plan.kernel, ": ", why);
    const bool half_sums = narrow == Narrow::fp16;
    const PiecesSchedule schedule = schedule_pieces(regions, half_sums, gpu.sm_count);
    shape_ = schedule.shape;
    blocks_ = static_cast<int>(schedule.first.size()) - 1;
    partial_bytes_ = static_cast<size_t>(schedule.slots) * shape_.rows * shape_.columns() * (half_sums ? 2 : 4);
    counter_bytes_ = static_cast<size_t>(schedule.counters) * sizeof(int);
    int of_sm = 0, of_block = 0;
    check(cudaDeviceGetAttribute(&of_sm, cudaDevAttrMaxSharedMemoryPerMultiprocessor, gpu.index),
          "shared memory of a multiprocessor");
    check(cudaDeviceGetAttribute(&of_block, cudaDevAttrMaxSharedMemoryPerBlockOptin, gpu.index),
          "shared memory per block");
    shared_bytes_ = std::min(of_sm / shape_.blocks_per_sm - kReservedBytes, of_block - kStaticBytes);
    kernels_.prepare(shape_, shared_bytes_);
    items_ = upload(allocator, schedule.items.data(), schedule.items.size(), stream);
    first_ = upload(allocator, schedule.first.data(), schedule.first.size(), stream);
    check(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)), "upload of a plan");
  }

  NativeScratch scratch() const override { return {counter_bytes_, partial_bytes_}; }

  void run(const NativeWeight& weight, const GemmArgs& args, const NativeContext& context) const override {
    check_native_call(plan_, weight, args);
    require(reinterpret_cast<uintptr_t>(args.activations) % 16 == 0 && args.lda % 8 == 0, plan_.kernel,
            ": rows of activations must lie at multiples of 16 bytes");
    require(reinterpret_cast<uintptr_t>(args.out) % 4 == 0 && args.ldo % 2 == 0, plan_.kernel,
            ": rows of the output must lie at multiples of 4 bytes");
    const PiecesArgs all = arguments(weight, args, context);
    const CopyArray rows{
        CU_TENSOR_MAP_DATA_TYPE_UINT16,
        args.activations,
        {kPieceTileK, static_cast<cuuint64_t>(plan_.m), static_cast<cuuint64_t>(plan_.k / kPieceTileK)},
        {static_cast<cuuint64_t>(args.lda) * 2, kPieceTileK * 2},
        {kPieceTileK, static_cast<cuuint32_t>(shape_.rows), 1},
        CU_TENSOR_MAP_SWIZZLE_128B};
    kernels_.launch({all, tensor_map(rows), shape_, blocks_, all.ring_bytes + kAlignment,
                     static_cast<cudaStream_t>(context.stream)});
  }

 private:
  PiecesArgs arguments(const NativeWeight& weight, const GemmArgs& args, const NativeContext& context) const {
    const RuleNumbers rule = rule_numbers(plan_, weight);
    const int number_words = kStripNumberWords * (rule == RuleNumbers::eight ? 1 : 2);
    const PiecesStage stage = stage_of(shape_, number_words);
    const int stages = std::min(kMostStages, (shared_bytes_ - kAlignment) / stage.bytes);
    return {.items = items_.data(),
            .first = first_.data(),
            .codes = weight.codes.data(),
            .numbers = weight.numbers.data(),
            .bias = args.bias,
            .out = args.out,
            .ldo = args.ldo,
            .partials = static_cast<uint32_t*>(context.free),
            .counters = static_cast<int*>(context.zeroed),
            .epilogue = plan_.epilogue,
            .rule = rule,
            .strips = static_cast<int>(padded_strips(plan_.n)),
            .group_tiles = static_cast<int>(plan_.group / kPieceTileK),
            .number_words = number_words,
            .stages = stages,
            .ring_bytes = stages * stage.bytes,
            .stage = stage};
  }

  Plan plan_;
  PiecesKernels kernels_;
  PiecesShape shape_{};
  int blocks_ = 0, shared_bytes_ = 0;
  size_t partial_bytes_ = 0, counter_bytes_ = 0;
  Buffer<PieceItem> items_;
  Buffer<int32_t> first_;
};

}  // namespace

std::string refuse_pieces(const Plan& plan, Narrow narrow) {
  const bool bf16 = plan.activations == Format::bf16;
  if (plan.step != StepRule::matrix_unit) return "its steps are " + std::string(step_rule_text(plan.step));
  if (plan.activations == Format::fp32 || plan.epilogue.output != plan.activations) return "takes fp16 or bf16";
  if (plan.weight != (bf16 ? WeightRule::bf16_sub_mul : WeightRule::fp16_sub_mul) &&
      plan.weight != (bf16 ? WeightRule::bf16_fma : WeightRule::fp16_fma)) {
    return "its weights are " + std::string(weight_rule_text(plan.weight));
  }
  if (plan.k % kPieceTileK != 0) return "takes K of a multiple of 64";
  if (plan.group % kPieceTileK != 0) {
    return "takes groups of multiples of 64, the plan's are " + std::to_string(plan.group);
  }
  if (plan.epilogue.channel_scale || plan.epilogue.bias == BiasRule::fused_scale) return "takes scales inside the sum";
  if (plan.n % 8 != 0 || plan.n > (1 << 22) || plan.m > (1 << 24)) return "takes N of multiples of 8 up to 2^22";
  return read_pieces_plan(plan, narrow, nullptr);
}

std::unique_ptr<NativeCall> prepare_pieces_call(const Plan& plan, Narrow narrow, const Gpu& gpu,
                                                const Allocator& allocator, void* stream) {
  return std::make_unique<PiecesCall>(plan, narrow, gpu, allocator, stream);
}

}  // namespace qf::cuda
