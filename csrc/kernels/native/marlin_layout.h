// Marlin-family weights for the native kernel. A warp's instruction takes a strip of 16 columns and 16 k; a chunk is 32
// k of a strip, 256 bytes, whole for one warp. Lane = 4 g + t.
//
//   codes    [k / 32][n / 16][lane][2 words]   word s holds, from the low nibble up, the codes of
//            column g: k, column g + 8: k, column g: k + 8, column g + 8: k + 8, then the same for k + 1;
//            k = 16 s + 2 t of the chunk
//   numbers  [k / group][n / 16][unit]         units of 16 bytes per strip and group
//            units 0, 1: word g = scale of column g | scale of column g + 8, as bits
//            unit 2, only where some zero point is not 8: half-word g = zero of column g | zero of column g + 8, moved
//            up by kUpperZeroShift for fp16 where weights enter as integers: one group with scales of one, then one
//            with the channels' scales
//
// A row of strips lies side by side, so that a block of the kernel fetches its columns of a chunk in one copy.
#pragma once

#include <cstdint>

namespace qf::cuda {

inline constexpr int kChunkK = 32;
inline constexpr int kChunkWords = 64;
inline constexpr int kChunkBytes = kChunkWords * 4;
inline constexpr int kActivationChunkBytes = kChunkK * 2;  // of a row
inline constexpr int kScaleUnits = 2;
inline constexpr int kUpperZeroShift = 4;

}  // namespace qf::cuda
