// awq below 256 rows: slices of chunks of 32 k, each rounded to fp16, their fp32 sum rounded to fp16.
#include "kernels/native/native_kernels.h"
#include "kernels/native/slice_call.cuh"

namespace qf::cuda {
namespace {

struct AwqArithmetic {
  using Partial = __half;
  static constexpr int kUnitsPerChunk = 1;
  static constexpr int kFewRowColumns = 1;  // measured on an H200
  static constexpr ManyRowTiles kManyRows = {{4, 8}, {2, 4}};

  static __host__ __device__ bool takes(const GroupSource& group) { return !group.has_offset; }
  /// Numbers of columns g and g + 8: word 0 their scales; word 1: 1024 + z of the one, -(64 + z) of the other.
  static __device__ uint2 numbers(const GroupSource& low, const GroupSource& high) {
    const __half2 zeros = __floats2half2_rn(1024.0f + low.zero, -(64.0f + high.zero));
    return {low.scale | static_cast<uint32_t>(high.scale) << 16, *reinterpret_cast<const uint32_t*>(&zeros)};
  }

  struct Group {
    __half2 scale[2], zero[2];

    __device__ explicit Group(uint2 numbers) {
      const __half2 scales = *reinterpret_cast<__half2*>(&numbers.x), zeros = *reinterpret_cast<__half2*>(&numbers.y);
      scale[0] = __low2half2(scales), scale[1] = __high2half2(scales);
      zero[0] = __low2half2(zeros), zero[1] = __high2half2(zeros);
    }
    /// RN16((q - z) * s). A nibble in the low bits of 0x6400 is 1024 + q; four bits higher it is 1024 + 16 q, of which
    /// a sixteenth is 64 + q. The differences are exact.
    __device__ void weights(uint32_t word, uint32_t (&a)[4]) const {
      const __half2 sixteenth = __float2half2_rn(0.0625f);
#pragma unroll
      for (int pair = 0; pair < 2; ++pair) {
        const uint32_t bits = word >> 8 * pair, low = nibbles<0x000F000F, 0x64006400>(bits),
                       high = nibbles<0x00F000F0, 0x64006400>(bits);
        const __half2 first = __hsub2(*reinterpret_cast<const __half2*>(&low), zero[0]);
        const __half2 second = __hfma2(*reinterpret_cast<const __half2*>(&high), sixteenth, zero[1]);
        const __half2 scaled[2] = {__hmul2(first, scale[0]), __hmul2(second, scale[1])};
        a[2 * pair] = *reinterpret_cast<const uint32_t*>(&scaled[0]);
        a[2 * pair + 1] = *reinterpret_cast<const uint32_t*>(&scaled[1]);
      }
    }
  };

  static __device__ void join(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    mma(Fp16{}, sum, a, b, sum);
  }
  static __device__ Partial partial(float sum) { return __float2half_rn(sum); }
  static __device__ float total(const Partial (&x)[kSlices]) {
    float four[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) four[i] = __fadd_rn(__half2float(x[i]), __half2float(x[i + 4]));
    return __fadd_rn(__fadd_rn(__fadd_rn(four[0], four[1]), four[2]), four[3]);
  }
  static __device__ uint16_t finish(float total, const uint16_t* bias, int column) {
    const __half rounded = __float2half_rn(total);
    if (bias == nullptr) return __half_as_ushort(rounded);
    return __half_as_ushort(
        __float2half_rn(__fadd_rn(__half2float(rounded), __half2float(__ushort_as_half(bias[column])))));
  }
};

/// The order that the kernel has, for comparison with the plan's.
Tree awq_tree(int64_t k) {
  Tree tree;
  tree.leaf_narrow = Narrow::fp16;
  for (int64_t slice = 0; slice < kSlices; ++slice) {
    const int64_t chunks = k / kUnit;
    Leaf leaf;
    if (slice < chunks) {
      leaf.walks.push_back({slice * kUnit, kUnit, kSlices * kUnit, (chunks - slice + kSlices - 1) / kSlices});
    }
    tree.leaves.push_back(leaf);
  }
  for (int32_t i = 0; i < 4; ++i) tree.adds.push_back({i, i + 4, Narrow::none});
  for (int32_t i = 0; i < 3; ++i) tree.adds.push_back({i == 0 ? 8 : 11 + i, 9 + i, Narrow::none});
  return tree;
}

SliceMap awq_map(const Plan& plan) { return {static_cast<int>(plan.k), AwqArithmetic::kUnitsPerChunk, 0}; }

}  // namespace

std::string refuse_awq(const Plan& plan, int compute_capability) {
  if (plan.kernel != "awq") return "serves awq only";
  if (plan.activations != Format::fp16 || plan.weight != WeightRule::fp16_sub_mul) return "takes fp16 codes";
  if (plan.step != StepRule::matrix_unit || plan.k % kUnit != 0) return "takes steps of the matrix unit over 32 k";
  if (const std::string why = refuse_slices(plan); !why.empty()) return why;
  if (!same_tree(plan.trees[0], awq_tree(plan.k))) return "the plan adds in another order";
  return refuse_unit(plan, compute_capability);
}

NativeWeight pack_awq(const Plan& plan, const DeviceWeight& weight, const Allocator& allocator, void* stream) {
  return pack_slices<AwqArithmetic>(plan, awq_map(plan), weight, allocator, stream);
}

std::unique_ptr<NativeCall> prepare_awq(const Plan& plan, const Gpu& gpu, const Allocator&, void*) {
  return std::make_unique<SliceCall<AwqArithmetic>>(plan, awq_map(plan), gpu);
}

}  // namespace qf::cuda
