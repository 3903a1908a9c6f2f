// The order in which the atomics of one unit (row, 64 columns, parity of column / 2) land, drawn from a seed; the same
// on every executor.
#pragma once
// nvcc: int16_t order[4]; qf::race_order(7, 0, 0, 1, order, 4); x[0] = order[0];

#include <cstdint>

#include "base/integers.h"

namespace qf {

/// order[0 .. count): a permutation (Fisher-Yates).
template <class Index>
QF_HD inline void race_order(uint64_t seed, int64_t row, int64_t column_block, int parity, Index* order, int count) {
  for (int i = 0; i < count; ++i) order[i] = static_cast<Index>(i);
  uint64_t state = mix_bits(mix_bits(mix_bits(seed) ^ static_cast<uint64_t>(row)) ^
                            static_cast<uint64_t>(2 * column_block + parity));
  for (int i = count; i > 1; --i) {
    state = mix_bits(state);
    const int j = static_cast<int>(state % static_cast<uint64_t>(i));
    const Index taken = order[i - 1];
    order[i - 1] = order[j];
    order[j] = taken;
  }
}

}  // namespace qf
