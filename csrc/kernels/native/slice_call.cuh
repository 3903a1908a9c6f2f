// The host's side of slice_gemm.cuh: packing, choice of the tile, launch.
#pragma once

#include <algorithm>

#include "base/half.h"
#include "kernels/native/native_kernels.h"
#include "kernels/native/slice_gemm.cuh"

namespace qf::cuda {

/// Tiles of 16 columns and of 8 rows per block.
struct SliceTile {
  int columns, rows;
};
/// For more than 32 rows: where blocks are plenty, and elsewhere. Measured on an H200.
struct ManyRowTiles {
  SliceTile wide, narrow;
};

/// What the group of one column holds.
struct GroupSource {
  float zero;
  uint16_t scale;  // bits
  bool has_offset;
  float offset;
};

template <class Arithmetic>
__global__ void pack_slice_codes(const uint8_t* codes, int tiles, SliceMap map, uint32_t* out) {
  const int64_t words = static_cast<int64_t>(tiles) * kSlices * map.pairs() * 128;
  for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < words;
       i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    const int word = static_cast<int>(i % 4), lane = static_cast<int>(i / 4 % 32);
    const int64_t rest = i / 128;
    const int unit = static_cast<int>(rest % map.pairs()) * 2 + word / 2;
    const int slice = static_cast<int>(rest / map.pairs() % kSlices);
    const int64_t tile = rest / map.pairs() / kSlices;
    const int k = map.first_k(slice, unit) + word % 2 * 16 + lane % 4 * 4;
    uint32_t bits = 0;
    if (unit < map.units(slice) && k < map.k) {
      const uint8_t* at = codes + (tile * map.k + k) * 8 + lane / 4;
      bits = at[0] | at[16] << 8 | at[8] << 16 | static_cast<uint32_t>(at[24]) << 24;
    }
    out[i] = bits;
  }
}

struct NumberSources {
  const uint8_t* zeros;
  const uint16_t* scales;
  const float* offsets;  // or null

  __device__ GroupSource at(int64_t i) const {
    return {static_cast<float>(zeros[i]), scales[i], offsets != nullptr, offsets == nullptr ? 0.0f : offsets[i]};
  }
};

/// `refused` becomes 1 where a group is not one that the arithmetic takes.
template <class Arithmetic>
__global__ void pack_slice_numbers(NumberSources sources, int64_t count, uint2* out, int32_t* refused) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;  // (tile, group), g
  if (i >= count) return;
  const GroupSource low = sources.at(i / 8 * kTileColumns + i % 8), high = sources.at(i / 8 * kTileColumns + i % 8 + 8);
  if (!Arithmetic::takes(low) || !Arithmetic::takes(high)) *refused = 1;
  out[i] = Arithmetic::numbers(low, high);
}

/// Returns whether the arithmetic takes every group.
template <class Arithmetic>
bool pack_numbers(const DeviceWeight& weight, const Allocator& allocator, void* stream, Buffer<uint32_t>& out) {
  const int64_t count = weight.panels() * weight.groups() * 8;
  int32_t refused = 0;
  const Buffer<int32_t> flag = upload(allocator, &refused, 1, stream);
  out = Buffer<uint32_t>(allocator, static_cast<size_t>(count) * 2, stream);
  const NumberSources sources{weight.zeros.data(), weight.scales.data(), weight.offsets.data()};
  pack_slice_numbers<Arithmetic>
      <<<static_cast<unsigned>((count + 255) / 256), 256, 0, static_cast<cudaStream_t>(stream)>>>(
          sources, count, reinterpret_cast<uint2*>(out.data()), flag.data());
  check_launch("pack_slice_numbers");
  copy_to_host(&refused, flag.data(), sizeof refused, stream);
  return refused == 0;
}

template <class Arithmetic>
NativeWeight pack_slices(const Plan& plan, const SliceMap& map, const DeviceWeight& weight, const Allocator& allocator,
                         void* stream) {
  require(!weight.is_dense(), plan.kernel, ": a native kernel takes codes, not numbers");
  require(weight.order.size() == 0, plan.kernel, ": the native kernel takes no act-order");
  require(weight.n == plan.n && weight.k == plan.k && weight.group == plan.group, plan.kernel,
          ": the weight is not the plan's");
  require(weight.format == plan.activations, plan.kernel, ": scales in ", format_name(weight.format),
          ", activations in ", format_name(plan.activations));
  NativeWeight out;
  out.n = weight.n, out.k = weight.k, out.group = weight.group;
  const auto tiles = static_cast<int>(weight.panels());
  const auto s = static_cast<cudaStream_t>(stream);
  out.codes = Buffer<uint32_t>(allocator, static_cast<size_t>(tiles) * kSlices * map.pairs() * 128, stream);
  pack_slice_codes<Arithmetic><<<2048, 256, 0, s>>>(weight.codes.data(), tiles, map, out.codes.data());
  check_launch("pack_slice_codes");
  require(pack_numbers<Arithmetic>(weight, allocator, stream, out.numbers), plan.kernel,
          ": the native kernel does not take this weight's float offsets");
  check(cudaStreamSynchronize(s), "pack_slices");
  return out;
}

/// What every slice kernel refuses.
std::string refuse_slices(const Plan& plan);
/// Unit of 32 k to group, as a shift; refuse_slices lets only such groups pass.
int group_shift(const Plan& plan);

/// few_row_columns: tiles of columns per block to 8 rows, where blocks are plenty.
SliceTile slice_tile(int64_t m, int64_t n, int sm_count, int few_row_columns, const ManyRowTiles& many);

inline bool has_rest(const SliceMap& map) { return map.k % map.chunk() != 0; }

template <class Arithmetic>
class SliceCall : public NativeCall {
 public:
  SliceCall(const Plan& plan, const SliceMap& map, const Gpu& gpu)
      : SliceCall(plan, map,
                  has_rest(map)
                      ? SliceTile{1, plan.m <= 8 ? 1 : 4}
                      : slice_tile(plan.m, plan.n, gpu.sm_count, Arithmetic::kFewRowColumns, Arithmetic::kManyRows),
                  gpu) {}
  SliceCall(const Plan& plan, const SliceMap& map, SliceTile tile, const Gpu& gpu)
      : plan_(plan), map_(map), tile_(tile), overlapped_(gpu.compute_capability >= 90), sm_count_(gpu.sm_count) {}

  /// Arranged activations.
  NativeScratch scratch() const override { return {0, static_cast<size_t>(row_blocks() * tile_.rows * units()) * 512}; }

  void run(const NativeWeight& weight, const GemmArgs& args, const NativeContext& context) const override {
    check_native_call(plan_, weight, args);
    const SliceArgs all{.codes = reinterpret_cast<const uint4*>(weight.codes.data()),
                        .numbers = reinterpret_cast<const uint2*>(weight.numbers.data()),
                        .rows = {static_cast<const uint16_t*>(args.activations), args.lda, static_cast<int>(plan_.m),
                                 static_cast<const uint4*>(context.free), units()},
                        .bias = static_cast<const uint16_t*>(args.bias),
                        .out = static_cast<uint16_t*>(args.out),
                        .ldo = args.ldo,
                        .n = static_cast<int>(plan_.n),
                        .tiles = static_cast<int>((plan_.n + kTileColumns - 1) / kTileColumns),
                        .groups = static_cast<int>(plan_.k / plan_.group),
                        .group_shift = group_shift(plan_),
                        .map = map_};
    if constexpr (Arithmetic::kUnitsPerChunk > 1) {
      if (has_rest(map_)) {
        return tile_.rows == 1 ? launch_tile<PlainRows, 1, 1, 4, 2, true>(all, context)
                               : launch_tile<PlainRows, 1, 4, 2, 1, true>(all, context);
      }
    }
    switch (tile_.columns * 10 + tile_.rows) {
      case 11:  // where two blocks are all that an SM gets, they have more registers
        if (all.tiles <= 2 * sm_count_) return launch_tile<PlainRows, 1, 1, 4, 2>(all, context);
        return launch_tile<PlainRows, 1, 1, 4, 3>(all, context);
      case 21: return launch_tile<PlainRows, 2, 1, 4, 2>(all, context);
      case 12: return launch_tile<PlainRows, 1, 2, 4, 2>(all, context);
      case 22: return launch_tile<PlainRows, 2, 2, 2, 2>(all, context);
      case 14: return launch_arranged<1, 4, 2, 2>(all, context);
      case 24: return launch_arranged<2, 4, 2, 2>(all, context);
      case Arithmetic::kManyRows.wide.columns * 10 + 8:
        return launch_arranged<Arithmetic::kManyRows.wide.columns, 8, 2, 1>(all, context);
      default: throw Error(plan_.kernel + ": no native kernel of this tile");
    }
  }

 private:
  int units() const { return (map_.k + kUnit - 1) / kUnit; }
  int64_t row_blocks() const { return (plan_.m + tile_.rows * kTileRows - 1) / (tile_.rows * kTileRows); }
  template <int T, int R, int D, int kBlocks>
  void launch_arranged(const SliceArgs& args, const NativeContext& context) const {
    const int64_t count = row_blocks() * R * units() * 32;
    const dim3 grid(static_cast<unsigned>((count + 255) / 256));
    launch(arrange_rows<R>, {grid, dim3(256), 0, overlapped_}, context.stream, "arrange_rows", args.rows.activations,
           args.rows.lda, args.rows.m, map_.k, units(), count, static_cast<uint4*>(context.free));
    launch_tile<ArrangedRows, T, R, D, kBlocks>(args, context);
  }
  template <template <int, int> class Rows, int T, int R, int D, int kBlocks, bool kRest = false>
  void launch_tile(const SliceArgs& args, const NativeContext& context) const {
    auto* kernel = slice_gemm<Arithmetic, Rows, T, R, D, kBlocks, kRest>;
    constexpr int bytes = std::max(SlicePartials<Arithmetic, T, R>::kBytes, Rows<R, 1>::kBytes);
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "shared memory of slices");
    const dim3 grid(static_cast<unsigned>((args.tiles + T - 1) / T), static_cast<unsigned>(row_blocks()));
    launch(kernel, {grid, dim3(kSlices * 32), bytes, overlapped_}, context.stream, "slice_gemm", args);
  }

  Plan plan_;
  SliceMap map_;
  SliceTile tile_;
  bool overlapped_;
  int sm_count_;
};

}  // namespace qf::cuda
