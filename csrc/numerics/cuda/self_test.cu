#include "numerics/cuda/self_test.h"

#include "base/cuda/check.h"
#include "base/cuda/gpu.h"
#include "numerics/cuda/converted_sum.cuh"
#include "numerics/cuda/fp64_sum.cuh"
#include "numerics/cuda/step_draw.cuh"

namespace qf::cuda {
namespace {

constexpr int kWarps = 4, kSteps = 4, kBlocks = 132 * 8;
constexpr int kTileRows = 16 + 8;

template <class Scheme, class Format>
__global__ void __launch_bounds__(kWarps * 32)
    step_test_kernel(MatrixUnit unit, StepInputs inputs, uint64_t seed, int64_t rounds, Tally* tally) {
  __shared__ __align__(16) uint16_t value[kWarps][kTileRows * kLd];
  __shared__ __align__(16) int16_t exponent[kWarps][kTileRows * kLd];
  const int warp = threadIdx.x / 32, lane_index = threadIdx.x % 32;
  const Scheme scheme(unit);
  const LaneTile lane;
  Random random{seed ^ (static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * 0xD1342543DE82EF95u};
  uint16_t* values = value[warp];
  int16_t* exponents = exponent[warp];
  const bool half = unit.rounding == Rounding::fp16_nearest_even;
  for (int64_t round = 0; round < rounds; ++round) {
    float expected[4], found[4];
    for (int i = 0; i < 4; ++i) expected[i] = found[i] = draw_accumulator(inputs, random, half);
    for (int step = 0; step < kSteps; ++step) {
      __syncwarp();
      if (lane_index < kTileRows) {
        uint16_t bits = 0;
        for (int k = 0; k < 16; ++k) {
          bits = draw<Format>(inputs, random, k, bits);
          values[lane_index * kLd + k] = bits;
          exponents[lane_index * kLd + k] = static_cast<int16_t>(
              marked_exponent(number<Format>(bits), unit.input_exponent) + (lane_index < 16 ? 0 : 127));
        }
      }
      __syncwarp();
      const Rows left{values, exponents}, right{values + 16 * kLd, exponents + 16 * kLd};
      for (int k = 0; k < 16; k += scheme.step()) scheme.run(found, scheme.left(left, k), scheme.right(right, k));
      for (int i = 0; i < 4; ++i) {
        const uint16_t *row = left.value + lane.row(i) * kLd, *column = right.value + lane.column(i) * kLd;
        for (int k = 0; k < 16; k += unit.products) {
          expected[i] = definition_output<Format>(unit, row + k, column + k, unit.products, expected[i]);
        }
        if (half) expected[i] = half_to_float(float_to_half(expected[i]));
        compare(tally, expected[i], found[i], half);
        found[i] = expected[i];  // a difference counts once
      }
    }
  }
}

template <class Scheme, class Format>
StepTestResult run(const StepTest& test, const Allocator& allocator, void* stream) {
  constexpr int64_t per_round = static_cast<int64_t>(kBlocks) * kWarps * 128 * kSteps;
  const int64_t rounds = (test.outputs + per_round - 1) / per_round;
  const Buffer<Tally> tally(allocator, 1, stream);
  const auto s = static_cast<cudaStream_t>(stream);
  check(cudaMemsetAsync(tally.data(), 0, sizeof(Tally), s), "cudaMemsetAsync");
  step_test_kernel<Scheme, Format>
      <<<kBlocks, kWarps * 32, 0, s>>>(test.unit, test.inputs, test.seed, rounds, tally.data());
  check_launch("step_test");
  Tally found{};
  copy_to_host(&found, tally.data(), sizeof found, stream);
  return {rounds * per_round, static_cast<int64_t>(found.differing), found.expected, found.found};
}

template <template <class, int> class Sum, class Format, class Accumulator>
StepTestResult run_grid(const StepTest& test, const Allocator& allocator, void* stream) {
  require(grid_serves(test.unit), "no sums on a grid for ", test.unit.products, " products and ",
          test.unit.fraction_bits, " fraction bits");
  switch (test.unit.products) {
    case 4: return run<GridStep<Format, Accumulator, 4, Sum<Format, 4>>, Format>(test, allocator, stream);
    case 8: return run<GridStep<Format, Accumulator, 8, Sum<Format, 8>>, Format>(test, allocator, stream);
    default: return run<GridStep<Format, Accumulator, 16, Sum<Format, 16>>, Format>(test, allocator, stream);
  }
}

template <class Format, class Accumulator>
StepTestResult pick(const StepTest& test, const Allocator& allocator, void* stream) {
  switch (test.scheme) {
    case Scheme::native: return run<Native<Format, Accumulator>, Format>(test, allocator, stream);
    case Scheme::pinned:
      require(test.unit.products == 8 || test.unit.products == 4, "no pinned scheme for ", test.unit.products,
              " products");
      return test.unit.products == 8 ? run<Pinned<Format, Accumulator, 8>, Format>(test, allocator, stream)
                                     : run<Pinned<Format, Accumulator, 4>, Format>(test, allocator, stream);
    case Scheme::fp64: return run_grid<Fp64Sum, Format, Accumulator>(test, allocator, stream);
    case Scheme::converted: return run_grid<ConvertedSum, Format, Accumulator>(test, allocator, stream);
    case Scheme::definition: return run<Definition<Format>, Format>(test, allocator, stream);
  }
  return {};
}

}  // namespace

StepTestResult run_step_test(const StepTest& test, const Allocator& allocator, void* stream) {
  if (test.unit.input_exponent == -126) return pick<Bf16, float>(test, allocator, stream);
  require(test.unit.input_exponent == -14, "step tests are for fp16 and bf16 inputs");
  if (test.unit.rounding == Rounding::fp16_nearest_even) return pick<Fp16, Fp16>(test, allocator, stream);
  return pick<Fp16, float>(test, allocator, stream);
}

void require_faithful_gpu(int index) {
  const Gpu gpu = require_gpu(index);
  const OwnUnit own = own_unit(gpu.compute_capability);
  if (own.products == 0) return;  // everything runs by the definition there
  check(cudaSetDevice(gpu.index), "cudaSetDevice");
  for (const int lowest : {-14, -126}) {
    const MatrixUnit self{own.products, own.fraction_bits, Rounding::fp32_toward_zero, -108 - own.fraction_bits,
                          lowest};
    const MatrixUnit older{8, 24, Rounding::fp32_toward_zero, -132, lowest};
    const MatrixUnit newer{16, 25, Rounding::fp32_toward_zero, -133, lowest};
    for (const MatrixUnit& unit : {self, older, newer}) {
      const Scheme scheme = scheme_for(unit, own);
      if (scheme == Scheme::definition) continue;
      const StepTestResult result = run_step_test({unit, scheme, StepInputs::wide, 1, 1}, runtime_allocator(), nullptr);
      require(result.differing == 0, gpu.name, " (compute capability ", gpu.compute_capability,
              ") contradicts its profile: of ", result.outputs, " steps of ", unit.products, " products and ",
              unit.fraction_bits, " fraction bits, scheme ", scheme_name(scheme), ", ", result.differing,
              " differ; one gave bits ", result.found, " instead of ", result.expected);
    }
  }
}

}  // namespace qf::cuda
