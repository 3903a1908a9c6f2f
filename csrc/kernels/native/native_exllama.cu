// exllama (gptq up to 50 rows): see exllama_gemm.cuh.
#include <algorithm>
#include <bit>

#include "kernels/native/exllama_gemm.cuh"
#include "kernels/native/native_kernels.h"

namespace qf::cuda {
namespace {

/// Bytes that a block may have (CUDA C++ Programming Guide, technical specifications per compute capability).
int largest_shared(int compute_capability) {
  return compute_capability == 80 || compute_capability >= 90 ? 160 << 10 : 98 << 10;
}

int leaf_count(const Plan& plan) { return static_cast<int>((plan.k + kLeafK - 1) / kLeafK); }
int quad_count(const Plan& plan) { return (leaf_count(plan) + kQuad - 1) / kQuad; }
int tile_count(const Plan& plan) { return static_cast<int>((plan.n + kQuadColumns - 1) / kQuadColumns); }

/// The order that the kernel has, for comparison with the plan's.
Tree exllama_tree(int64_t k) {
  Tree tree;
  tree.leaf_narrow = Narrow::fp16;
  tree.racing = true;
  for (int64_t begin = 0; begin < k; begin += kLeafK) {
    tree.leaves.push_back(straight_leaf(begin, std::min<int64_t>(k, begin + kLeafK)));
  }
  return tree;
}

struct PackSource {
  const uint8_t *codes, *zeros;
  const uint16_t* scales;
  int k, panels, groups, quads;
};

__global__ void pack_exllama_codes(const PackSource source, int64_t words, uint32_t* out) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i >= words) return;
  const int column = static_cast<int>(i % 32), leaf_in_quad = static_cast<int>(i / 32 % kQuad);
  const int octet = static_cast<int>(i / 128 % kOctets), quad = static_cast<int>(i / 128 / kOctets % source.quads);
  const int64_t panel = i / 128 / kOctets / source.quads * 2 + column / 16;
  const int k = (quad * kQuad + leaf_in_quad) * kLeafK + octet * 8;
  uint32_t bits = 0;
  if (k < source.k && panel < source.panels) {
    const uint8_t* at = source.codes + (panel * source.k + k) * 8 + column % 8;
    for (int j = 0; j < 8; ++j) {
      const uint32_t code = column % 16 < 8 ? at[j * 8] & 15u : at[j * 8] >> 4;
      bits |= code << (j / 2 * 4 + j % 2 * 16);
    }
  }
  out[i] = bits;
}

__global__ void pack_exllama_numbers(const PackSource source, int64_t count, uint16_t* out) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;  // (tile, group), column
  if (i >= count) return;
  const int column = static_cast<int>(i % 32), group = static_cast<int>(i / 32 % source.groups);
  const int64_t panel = i / 32 / source.groups * 2 + column / 16;
  const bool exists = panel < source.panels;
  const int64_t from = (panel * source.groups + group) * 16 + column % 16;
  uint16_t* to = out + i / 32 * 64 + column / 4 * 8 + column % 4;
  to[0] = exists ? source.scales[from] : uint16_t{0};
  to[4] = static_cast<uint16_t>(0x6400u + (exists ? source.zeros[from] : 0u));
}

/// Act-order: out[row][k] = x[row][order[k]].
__global__ void permute_rows(const uint16_t* x, int64_t lda, const int32_t* order, int k, uint16_t* out) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  wait_for_earlier_kernels();
  if (i < k) out[blockIdx.y * static_cast<int64_t>(k) + i] = x[blockIdx.y * lda + order[i]];
}

class ExllamaCall : public NativeCall {
 public:
  ExllamaCall(const Plan& plan, const Gpu& gpu)
      : plan_(plan),
        sm_count_(gpu.sm_count),
        largest_shared_(largest_shared(gpu.compute_capability)),
        overlapped_(gpu.compute_capability >= 90) {}

  NativeScratch scratch() const override { return {0, static_cast<size_t>(plan_.m * plan_.k) * 2}; }

  void run(const NativeWeight& weight, const GemmArgs& args, const NativeContext& context) const override {
    check_native_call(plan_, weight, args);
    ExllamaArgs all{
        .codes = reinterpret_cast<const uint4*>(weight.codes.data()),
        .numbers = reinterpret_cast<const uint4*>(weight.numbers.data()),
        .activations = static_cast<const uint16_t*>(args.activations),
        .bias = static_cast<const uint16_t*>(args.bias),
        .out = static_cast<uint16_t*>(args.out),
        .lda = args.lda,
        .ldo = args.ldo,
        .m = static_cast<int>(plan_.m),
        .n = static_cast<int>(plan_.n),
        .k = static_cast<int>(plan_.k),
        .leaves = leaf_count(plan_),
        .groups = static_cast<int>(plan_.k / plan_.group),
        .first_row = 0,
        .octet_shift = plan_.group == plan_.k ? 30 : std::countr_zero(static_cast<uint64_t>(plan_.group / 8)),
        .deterministic = context.deterministic || leaf_count(plan_) < 3,
        .seed = context.seed};
    if (weight.order.size() > 0) permute(weight, all, context);
    if (plan_.group >= kLeafK || plan_.group == plan_.k) return launch_groups<true>(all, context);
    launch_groups<false>(all, context);
  }

 private:
  void permute(const NativeWeight& weight, ExllamaArgs& args, const NativeContext& context) const {
    auto* permuted = static_cast<uint16_t*>(context.free);
    const dim3 grid(static_cast<unsigned>((args.k + 255) / 256), static_cast<unsigned>(args.m));
    launch(permute_rows, {grid, dim3(256), 0, overlapped_}, context.stream, "permute_rows", args.activations, args.lda,
           weight.order.data(), args.k, permuted);
    args.activations = permuted;
    args.lda = args.k;
  }
  /// Blocks of one multiprocessor times what one costs (measured on an H200, R = 8 is 1); few warps wait for memory.
  template <int R>
  double estimate(double cost, int rows) const {
    if (!fits<R, 512>()) return 1e9;
    const int64_t blocks = tile_count(plan_) * ((rows + R - 1) / R), rounds = (blocks + sm_count_ - 1) / sm_count_;
    return static_cast<double>(rounds) * cost * (rounds * warps<512>() < 12 ? 1.5 : 1.0);
  }
  template <bool kLeafGroups>
  void launch_groups(const ExllamaArgs& args, const NativeContext& context) const {
    const double one = estimate<1>(0.3, args.m), two = estimate<2>(0.4, args.m), four = estimate<4>(0.58, args.m),
                 eight = estimate<8>(1.0, args.m);
    const double least = std::min({one, two, four, eight});
    if (least == eight) return launch_eights<kLeafGroups>(args, context);
    if (least == four) return launch_rows<4, 4, 512, kLeafGroups>(args, context);
    if (least == two) return launch_rows<2, 8, 512, kLeafGroups>(args, context);
    if (quad_count(plan_) <= 8 && tile_count(plan_) < 3 * sm_count_) {
      return launch_rows<1, 8, 256, kLeafGroups>(args, context);
    }
    launch_rows<1, 8, 768, kLeafGroups>(args, context);
  }
  /// Eight rows at a time; up to four that are left over by themselves, where the others are many.
  template <bool kLeafGroups>
  void launch_eights(ExllamaArgs args, const NativeContext& context) const {
    const int rest = args.m % 8;
    if (args.m > 16 && rest >= 1 && rest <= 4) {
      ExllamaArgs tail = args;
      args.m -= rest;
      tail.first_row = args.m;
      tail.activations += args.m * args.lda;
      tail.out += args.m * args.ldo;
      tail.m = rest;
      launch_groups<kLeafGroups>(tail, context);
    }
    const bool several = tile_count(plan_) * ((args.m + 7) / 8) > sm_count_;
    if (several && fits<8, 256>()) return launch_rows<8, 4, 256, kLeafGroups>(args, context);
    launch_rows<8, 4, 512, kLeafGroups>(args, context);
  }
  /// Warps of a block: all rounds over the quads alike.
  template <int kThreads>
  int warps() const {
    const int quads = quad_count(plan_), rounds = (quads + kThreads / 32 - 1) / (kThreads / 32);
    return (quads + rounds - 1) / rounds;
  }
  template <int R, int kThreads>
  bool fits() const {
    return QuadShared<R>::bytes(warps<kThreads>(), leaf_count(plan_), true) <= largest_shared_;
  }
  template <int R, int D, int kThreads, bool kLeafGroups>
  void launch_rows(const ExllamaArgs& args, const NativeContext& context) const {
    auto* kernel = exllama_gemm<R, D, kThreads, kLeafGroups>;
    const int bytes = QuadShared<R>::bytes(warps<kThreads>(), args.leaves, !args.deterministic);
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "shared memory of exllama");
    const dim3 grid(static_cast<unsigned>(tile_count(plan_)), static_cast<unsigned>((args.m + R - 1) / R));
    const dim3 block(static_cast<unsigned>(warps<kThreads>()) * 32);
    launch(kernel, {grid, block, static_cast<size_t>(bytes), overlapped_}, context.stream, "exllama_gemm", args);
  }

  Plan plan_;
  int sm_count_, largest_shared_;
  bool overlapped_;
};

}  // namespace

std::string refuse_exllama(const Plan& plan, int compute_capability) {
  if (plan.kernel != "exllama") return "serves exllama up to 50 rows only";
  if (plan.activations != Format::fp16 || plan.weight != WeightRule::integer) return "takes fp16 codes";
  if (plan.step != StepRule::half2_chain || plan.k % 8 != 0) return "takes chains over 8 k";
  if (plan.trees.size() != 1 || plan.regions.size() != 1) return "takes one tree for all outputs";
  if (plan.group != plan.k && (plan.group % 8 != 0 || !std::has_single_bit(static_cast<uint64_t>(plan.group)))) {
    return "takes groups of 8, 16, 32, ... or one group";
  }
  if (plan.file_order || plan.epilogue.channel_scale || plan.epilogue.output != Format::fp16) return "writes fp16 sums";
  if (plan.epilogue.bias != BiasRule::none && plan.epilogue.bias != BiasRule::after_rounding) {
    return "adds a bias to the rounded result";
  }
  if (!same_tree(plan.trees[0], exllama_tree(plan.k))) return "the plan adds in another order";
  if (QuadShared<1>::bytes(24, leaf_count(plan), true) > largest_shared(compute_capability))
    return "K is too long for its shared memory";
  return "";
}

NativeWeight pack_exllama(const Plan& plan, const DeviceWeight& weight, const Allocator& allocator, void* stream) {
  require(!weight.is_dense() && weight.offsets.size() == 0, plan.kernel,
          ": the native kernel takes codes and zero points");
  require(weight.n == plan.n && weight.k == plan.k && weight.group == plan.group && weight.format == Format::fp16,
          plan.kernel, ": the weight is not the plan's");
  const auto s = static_cast<cudaStream_t>(stream);
  const auto blocks = [](int64_t count) { return static_cast<unsigned>((count + 255) / 256); };
  NativeWeight out;
  out.n = weight.n, out.k = weight.k, out.group = weight.group;
  const PackSource source{weight.codes.data(),
                          weight.zeros.data(),
                          weight.scales.data(),
                          static_cast<int>(weight.k),
                          static_cast<int>(weight.panels()),
                          static_cast<int>(weight.groups()),
                          quad_count(plan)};
  const int64_t words = static_cast<int64_t>(tile_count(plan)) * source.quads * kOctets * 128;
  out.codes = Buffer<uint32_t>(allocator, static_cast<size_t>(words), stream);
  pack_exllama_codes<<<blocks(words), 256, 0, s>>>(source, words, out.codes.data());
  check_launch("pack_exllama_codes");
  const int64_t columns = static_cast<int64_t>(tile_count(plan)) * source.groups * 32;
  out.numbers = Buffer<uint32_t>(allocator, static_cast<size_t>(columns), stream);
  pack_exllama_numbers<<<blocks(columns), 256, 0, s>>>(source, columns,
                                                       reinterpret_cast<uint16_t*>(out.numbers.data()));
  check_launch("pack_exllama_numbers");
  if (weight.order.size() > 0) {
    out.order = Buffer<int32_t>(allocator, weight.order.size(), stream);
    check(cudaMemcpyAsync(out.order.data(), weight.order.data(), weight.order.bytes(), cudaMemcpyDeviceToDevice, s),
          "copy of the act-order");
  }
  check(cudaStreamSynchronize(s), "pack_exllama");
  return out;
}

std::unique_ptr<NativeCall> prepare_exllama(const Plan& plan, const Gpu& gpu, const Allocator&, void*) {
  return std::make_unique<ExllamaCall>(plan, gpu);
}

}  // namespace qf::cuda
