// 4-bit weights for the kernel of pieces. A warp's part of a warpgroup instruction is a strip of 16 columns and 16 k; a
// tile is 64 k. Lane = 4 g + t.
//
//   codes    [k / 64][n / 16][lane][4 words]   word s: k = 16 s + 2 t of the tile; from the low nibble up the codes of
//            column g: k, column g + 8: k, column g: k + 8, column g + 8: k + 8, then the same for k + 1
//   numbers  [k / group][n / 16][unit][8 words]   word g of unit 0: scale of column g | scale of column g + 8, as bits;
//            of unit 1, where the rule has one: what RuleNumbers says, of the same columns
//
// Columns are padded to multiples of 128 with codes and numbers of zero. What a block fetches lies together.
#pragma once

#include <cstdint>

#include "kernels/emulate/cuda/device_weight.h"
#include "kernels/native/native_kernels.h"

namespace qf::cuda {

inline constexpr int kPieceTileK = 64;
inline constexpr int kPieceStripColumns = 16;
inline constexpr int kStripWords = 128;      // codes of a strip and tile
inline constexpr int kStripNumberWords = 8;  // of a unit
inline constexpr int kPaddedColumns = 128;

/// A weight is RN((q - base) * scale + addend), one rounding; with an addend of -0 that is RN((q - base) * scale).
enum class RuleNumbers : uint8_t {
  eight,   // base 8, addend -0; no unit 1
  zeros,   // base z, addend -0; unit 1: z as the kernel subtracts it: bits of 1024 + z and of -(64 + z) (fp16), 128 + z
           // of both columns (bf16)
  addend,  // base 0; unit 1: addend RN(-z * scale)
};

inline int64_t padded_strips(int64_t n) { return (n + kPaddedColumns - 1) / kPaddedColumns * 8; }
/// What the plan's rule needs for this weight.
RuleNumbers rule_numbers(const Plan& plan, const NativeWeight& weight);
NativeWeight pack_pieces(const Plan& plan, const DeviceWeight& weight, const Allocator& allocator, void* stream);

}  // namespace qf::cuda
