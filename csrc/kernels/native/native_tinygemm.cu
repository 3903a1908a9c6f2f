// tinygemm (pytorch_int4): slices of chunks of 128 k, every step from +0 and added in fp32, slices added serially.
#include <optional>

#include "kernels/native/native_kernels.h"
#include "kernels/native/slice_call.cuh"

namespace qf::cuda {
namespace {

struct TinyArithmetic {
  using Partial = float;
  static constexpr int kUnitsPerChunk = 4;
  static constexpr int kFewRowColumns = 2;  // measured on an H200
  static constexpr ManyRowTiles kManyRows = {{2, 8}, {2, 8}};

  /// Stored offsets join (q - 8) * s where the zero point is 8 and they are bf16 numbers, as torchao's are.
  static __host__ __device__ bool takes(const GroupSource& group) {
    return !group.has_offset || (group.zero == 8.0f && bf16_to_float(float_to_bf16(group.offset)) == group.offset);
  }
  static __device__ uint32_t addend(const GroupSource& group) {
    const float exact = group.has_offset ? group.offset : (8.0f - group.zero) * bf16_to_float(group.scale);
    return __bfloat16_as_ushort(__float2bfloat16_rn(exact));
  }
  /// Word 0: scales of columns g and g + 8; word 1: what is added to (q - 8) * s.
  static __device__ uint2 numbers(const GroupSource& low, const GroupSource& high) {
    return {low.scale | static_cast<uint32_t>(high.scale) << 16, addend(low) | addend(high) << 16};
  }

  struct Group {
    __nv_bfloat162 scale[2], add[2];

    __device__ explicit Group(uint2 numbers) {
      const auto scales = *reinterpret_cast<__nv_bfloat162*>(&numbers.x);
      const auto adds = *reinterpret_cast<__nv_bfloat162*>(&numbers.y);
      scale[0] = __low2bfloat162(scales), scale[1] = __high2bfloat162(scales);
      add[0] = __low2bfloat162(adds), add[1] = __high2bfloat162(adds);
    }
    /// RNbf16((q - 8) * s + add), fused. A nibble in the low bits of 0x4300 is 128 + q.
    __device__ void weights(uint32_t word, uint32_t (&a)[4]) const {
      const __nv_bfloat162 bias = __float2bfloat162_rn(136.0f);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint32_t bits = nibbles<0x000F000F, 0x43004300>(word >> 4 * i);
        const __nv_bfloat162 code = __hsub2(*reinterpret_cast<const __nv_bfloat162*>(&bits), bias);
        const __nv_bfloat162 weight = __hfma2(code, scale[i % 2], add[i % 2]);
        a[i] = *reinterpret_cast<const uint32_t*>(&weight);
      }
    }
  };

  static __device__ void join(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    const float zero[4] = {};
    float fresh[4];
    mma(Bf16{}, fresh, a, b, zero);
#pragma unroll
    for (int i = 0; i < 4; ++i) sum[i] = __fadd_rn(sum[i], fresh[i]);
  }
  static __device__ Partial partial(float sum) { return sum; }
  static __device__ float total(const Partial (&x)[kSlices]) {
    float sum = x[0];
#pragma unroll
    for (int i = 1; i < kSlices; ++i) sum = __fadd_rn(sum, x[i]);
    return sum;
  }
  static __device__ uint16_t finish(float total, const uint16_t* bias, int column) {
    const __nv_bfloat16 rounded = __float2bfloat16_rn(total);
    if (bias == nullptr) return __bfloat16_as_ushort(rounded);
    return __bfloat16_as_ushort(__float2bfloat16_rn(__fadd_rn(__bfloat162float(rounded), bf16_to_float(bias[column]))));
  }
};

/// The order that the kernel has with this map, for comparison with the plan's.
Tree tiny_tree(const SliceMap& map) {
  Tree tree;
  const int64_t chunk = map.chunk(), chunks = map.k / chunk;
  for (int slice = 0; slice < kSlices; ++slice) {
    Leaf leaf;
    if (slice < chunks) {
      leaf.walks.push_back({slice * chunk, chunk, kSlices * chunk, (chunks - slice + kSlices - 1) / kSlices});
    }
    const int64_t begin = map.rest_begin(slice), end = std::min<int64_t>(map.k, begin + map.piece);
    if (begin < end) leaf.walks.push_back({begin, end - begin, end - begin, 1});
    tree.leaves.push_back(leaf);
  }
  for (int32_t i = 1; i < kSlices; ++i) tree.adds.push_back({i == 1 ? 0 : kSlices + i - 2, i, Narrow::none});
  return tree;
}

/// Pieces of the rest are inner_k_tiles tiles of 16 k.
std::optional<SliceMap> tiny_map(const Plan& plan) {
  for (const int piece : {32, 64, 128}) {
    const SliceMap map{static_cast<int>(plan.k), TinyArithmetic::kUnitsPerChunk, piece};
    if (same_tree(plan.trees[0], tiny_tree(map))) return map;
  }
  return std::nullopt;
}

}  // namespace

std::string refuse_tinygemm(const Plan& plan, int compute_capability) {
  if (plan.kernel != "tinygemm") return "serves tinygemm only";
  if (plan.activations != Format::bf16 || plan.weight != WeightRule::bf16_offset) return "takes bf16 codes";
  if (plan.step != StepRule::matrix_unit_fresh || plan.k % 16 != 0) return "takes fresh steps of 16 k";
  if (const std::string why = refuse_slices(plan); !why.empty()) return why;
  if (!tiny_map(plan)) return "the plan adds in another order";
  return refuse_unit(plan, compute_capability);
}

NativeWeight pack_tinygemm(const Plan& plan, const DeviceWeight& weight, const Allocator& allocator, void* stream) {
  return pack_slices<TinyArithmetic>(plan, tiny_map(plan).value(), weight, allocator, stream);
}

std::unique_ptr<NativeCall> prepare_tinygemm(const Plan& plan, const Gpu& gpu, const Allocator&, void*) {
  return std::make_unique<SliceCall<TinyArithmetic>>(plan, tiny_map(plan).value(), gpu);
}

}  // namespace qf::cuda
