// Random steps for the tests of a GPU's units, and the count of outputs that differ.
#pragma once

#include "numerics/cuda/self_test.h"
#include "numerics/cuda/step_schemes.cuh"

namespace qf::cuda {

struct Tally {
  unsigned long long differing;
  uint32_t expected, found;
};

struct Random {  // splitmix64 (Steele, Lea, Flood 2014)
  uint64_t state;
  __device__ uint64_t next() {
    state += 0x9E3779B97F4A7C15u;
    uint64_t x = state;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
  }
  /// Sum of four uniforms, centred: about normal.
  __device__ float value() {
    const uint64_t bits = next();
    float sum = -2.0f;
    for (int i = 0; i < 4; ++i) sum += static_cast<float>(bits >> (16 * i) & 0xFFFF) * 0x1p-16f;
    return sum;
  }
};

template <class Format>
__device__ uint16_t to_bits(float x) {
  return PinRange<Format>::bias == 127 ? float_to_bf16(x) : float_to_half(x);
}

template <class Format>
__device__ uint16_t draw(StepInputs inputs, Random& random, int k, uint16_t before) {
  constexpr uint16_t exponent_bits = PinRange<Format>::bias == 127 ? 0x7F80 : 0x7C00;
  const uint64_t choice = random.next();
  switch (inputs) {
    case StepInputs::plain: return to_bits<Format>(random.value());
    case StepInputs::wide: return to_bits<Format>(random.value() * exp2_int(static_cast<int>(choice % 24) - 14));
    case StepInputs::cancelling:
      if (k % 2 == 1) return static_cast<uint16_t>(before ^ 0x8000u ^ (choice % 4 == 0 ? 1u : 0u));
      return to_bits<Format>(random.value());
    case StepInputs::sparse:
      if (choice % 2 == 0) return static_cast<uint16_t>(choice >> 8 & 0x8000u);
      return static_cast<uint16_t>(choice >> 8 & (0x8000u | (exponent_bits ^ 0x7FFFu)));
    case StepInputs::any_finite:
    case StepInputs::special: break;
  }
  uint16_t bits = static_cast<uint16_t>(choice >> 16);
  const bool keep = inputs == StepInputs::special && choice % 64 == 0;
  if ((bits & exponent_bits) == exponent_bits && !keep) bits &= static_cast<uint16_t>(~0x4000u);
  return bits;
}

__device__ inline float draw_accumulator(StepInputs inputs, Random& random, bool half) {
  const uint64_t choice = random.next();
  if (choice % 4 == 0) return 0.0f;
  const float x = random.value() * exp2_int(static_cast<int>(choice >> 8) % 20 - 10);
  if (half) return round_to_half(x);
  return inputs == StepInputs::special && choice % 128 == 1 ? bits_float(0x7F800000u) : x;
}

__device__ inline void compare(Tally* tally, float expected, float found, bool half) {
  if (float_bits(expected) == float_bits(found)) return;
  // fp16 results widen a NaN to another one than the definition's
  if (half && expected != expected && found != found) return;
  if (atomicAdd(&tally->differing, 1ull) == 0) {
    tally->expected = float_bits(expected);
    tally->found = float_bits(found);
  }
}

}  // namespace qf::cuda
