// Eight codes of a word become a lane's part of the left operand: RN((q - base) * scale + addend), one rounding.
#pragma once

#include "kernels/native/marlin_dequantize.cuh"
#include "kernels/native/pieces_layout.h"
#include "kernels/native/wgmma_left.cuh"

namespace qf::cuda {

/// The numbers a unit multiplies.
template <class Unit>
struct Factors {
  using Type = Unit;
};
template <>
struct Factors<Fp16Sums> {
  using Type = Fp16;
};

/// What a lane's two columns (g and g + 8 of a strip) need of a group.
template <class Number>
struct PieceGroup {
  using P = typename Pair<Number>::Type;
  static constexpr bool kHalf = IsHalf<Number>::value;
  P scale[2], base[2], addend[2];

  /// Words of pieces_layout.h; `second` is read where the rule has it.
  __device__ __forceinline__ void set(RuleNumbers rule, uint32_t scales, uint32_t second) {
    const uint32_t low = __byte_perm(second, 0, 0x1010), high = __byte_perm(second, 0, 0x3232);
    scale[0] = as_pair<Number>(__byte_perm(scales, 0, 0x1010));
    scale[1] = as_pair<Number>(__byte_perm(scales, 0, 0x3232));
    addend[0] = as_pair<Number>(rule == RuleNumbers::addend ? low : 0x80008000u);
    addend[1] = as_pair<Number>(rule == RuleNumbers::addend ? high : 0x80008000u);
    // 1024 and -64, or 128: the codes themselves; with 8 more, codes less 8
    const bool whole = rule == RuleNumbers::addend;
    const uint32_t first = kHalf ? (whole ? 0x64006400u : 0x64086408u) : (whole ? 0x43004300u : 0x43084308u);
    const uint32_t other = kHalf ? (whole ? 0xD400D400u : 0xD480D480u) : first;
    base[0] = as_pair<Number>(rule == RuleNumbers::zeros ? low : first);
    base[1] = as_pair<Number>(rule == RuleNumbers::zeros ? high : other);
  }
  __device__ __forceinline__ void weights(uint32_t codes, uint32_t (&out)[4]) const {
    if constexpr (kHalf) {
      const __half2 sixteenth = as_pair<Fp16>(0x2C002C00u);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const __half2 low = as_pair<Fp16>(masked_or(codes, 0x000F000Fu, 0x64006400u));
        const __half2 high = as_pair<Fp16>(masked_or(codes, 0x00F000F0u, 0x64006400u));
        out[2 * i] = pair_bits(__hfma2(__hsub2_rn(low, base[0]), scale[0], addend[0]));
        out[2 * i + 1] = pair_bits(__hfma2(__hfma2(high, sixteenth, base[1]), scale[1], addend[1]));
        codes >>= 8;
      }
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const __nv_bfloat162 number = as_pair<Bf16>(masked_or(codes >> (4 * i), 0x000F000Fu, 0x43004300u));
        out[i] = pair_bits(__hfma2(__hsub2_rn(number, base[i % 2]), scale[i % 2], addend[i % 2]));
      }
    }
  }
};

}  // namespace qf::cuda
