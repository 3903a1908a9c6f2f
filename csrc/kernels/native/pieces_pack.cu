#include <algorithm>

#include "base/cuda/check.h"
#include "base/error.h"
#include "kernels/emulate/cuda/narrow.cuh"
#include "kernels/native/pieces_layout.h"

namespace qf::cuda {
namespace {

constexpr int kThreads = 256;

bool folds(const Plan& plan) { return plan.weight == WeightRule::fp16_fma || plan.weight == WeightRule::bf16_fma; }

/// Codes of strips that exist; one word per thread.
__global__ void pack_piece_codes(const uint8_t* codes, int64_t k, int64_t strips, int64_t padded, int64_t words,
                                 uint32_t* out) {
  const int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (i >= words) return;
  const int step = static_cast<int>(i % 4), lane = static_cast<int>(i / 4 % 32);
  const int64_t strip = i / kStripWords % padded, tile = i / kStripWords / padded;
  uint32_t word = 0;
  if (strip < strips) {
    const uint8_t* from = codes + (strip * k + tile * kPieceTileK + 16 * step + 2 * (lane % 4)) * 8 + lane / 4;
    for (int odd = 0; odd < 2; ++odd) {  // a byte: column g in the low nibble, g + 8 in the high one
      word |= static_cast<uint32_t>(from[odd * 8] | from[(odd + 8) * 8] << 8) << 16 * odd;
    }
  }
  out[i] = word;
}

struct PieceNumbersSource {
  const uint8_t* zeros;
  const uint16_t* scales;
  int64_t groups, strips, padded;
  RuleNumbers rule;
  Format format;
};

__device__ uint32_t second_number(const PieceNumbersSource& from, int64_t at, bool upper) {
  const int zero = from.zeros[at];
  if (from.rule == RuleNumbers::addend) {
    const float addend = (0.0f - static_cast<float>(zero)) * widened(from.format, from.scales[at]);
    return from.format == Format::bf16 ? bf16_bits(addend) : half_bits(addend);
  }
  if (from.format == Format::bf16) return bf16_bits(128.0f + static_cast<float>(zero));
  return half_bits(upper ? -64.0f - static_cast<float>(zero) : 1024.0f + static_cast<float>(zero));
}

/// One strip and group per thread.
__global__ void pack_piece_numbers(const PieceNumbersSource from, uint32_t* out) {
  const int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (i >= from.groups * from.padded) return;
  const int64_t strip = i % from.padded, group = i / from.padded;
  const int units = from.rule == RuleNumbers::eight ? 1 : 2;
  uint32_t* words = out + i * units * kStripNumberWords;
  for (int g = 0; g < 8; ++g) {
    const int64_t at = (strip * from.groups + group) * kPieceStripColumns + g;
    const bool there = strip < from.strips;
    words[g] = there ? from.scales[at] | static_cast<uint32_t>(from.scales[at + 8]) << 16 : 0;
    if (units == 2) words[g + 8] = there ? second_number(from, at, false) | second_number(from, at + 8, true) << 16 : 0;
  }
}

bool all_eight(const DeviceWeight& weight, void* stream) {
  std::vector<uint8_t> zeros(weight.zeros.size());
  copy_to_host(zeros.data(), weight.zeros.data(), zeros.size(), stream);
  return std::all_of(zeros.begin(), zeros.end(), [](uint8_t z) { return z == 8; });
}

}  // namespace

RuleNumbers rule_numbers(const Plan& plan, const NativeWeight& weight) {
  if (folds(plan)) return RuleNumbers::addend;
  const auto one_unit = static_cast<size_t>(weight.k / weight.group * padded_strips(weight.n) * kStripNumberWords);
  return weight.numbers.size() == one_unit ? RuleNumbers::eight : RuleNumbers::zeros;
}

NativeWeight pack_pieces(const Plan& plan, const DeviceWeight& weight, const Allocator& allocator, void* stream) {
  require(!weight.is_dense() && weight.offsets.size() == 0, plan.kernel,
          ": the native kernel takes 4-bit codes without offsets");
  require(weight.order.size() == 0, plan.kernel, ": act-order is not served natively; executor 'cuda' does");
  require(weight.n == plan.n && weight.k == plan.k && weight.group == plan.group && weight.format == plan.activations,
          plan.kernel, ": the weight is not the plan's");
  const int64_t strips = weight.panels(), padded = padded_strips(weight.n);
  const auto blocks = [](int64_t threads) { return static_cast<unsigned>((threads + kThreads - 1) / kThreads); };
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  PieceNumbersSource numbers{weight.zeros.data(), weight.scales.data(), weight.groups(), strips, padded,
                             RuleNumbers::addend, weight.format};
  if (!folds(plan)) numbers.rule = all_eight(weight, stream) ? RuleNumbers::eight : RuleNumbers::zeros;
  const int64_t words = weight.k / kPieceTileK * padded * kStripWords, pairs = weight.groups() * padded;
  NativeWeight out;
  out.n = weight.n, out.k = weight.k, out.group = weight.group;
  out.codes = Buffer<uint32_t>(allocator, static_cast<size_t>(words), stream);
  out.numbers = Buffer<uint32_t>(
      allocator, static_cast<size_t>(pairs * kStripNumberWords * (numbers.rule == RuleNumbers::eight ? 1 : 2)), stream);
  pack_piece_codes<<<blocks(words), kThreads, 0, cuda_stream>>>(weight.codes.data(), weight.k, strips, padded, words,
                                                                out.codes.data());
  check_launch("pack_piece_codes");
  pack_piece_numbers<<<blocks(pairs), kThreads, 0, cuda_stream>>>(numbers, out.numbers.data());
  check_launch("pack_piece_numbers");
  check(cudaStreamSynchronize(cuda_stream), "pack_pieces");
  return out;
}

}  // namespace qf::cuda
