// Racing atomics, explained after the fact: which order of the addends gives these outputs?
//
// All outputs of one unit (row, 64 columns, parity of column / 2) share one order (a warp's half2 atomic on one line).
// Up to kExactBlocks addends every order is tried, which explains a unit or refutes it. With more, each output alone is
// tried: orders drawn at random, then a search that swaps two addends; an output out of reach of any order is refuted
// by its distance from the exact sum, and what is neither reached nor refuted stays undecided.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/gemm.h"

namespace qf {

inline constexpr int kExactBlocks = 8;

enum class Reach : uint8_t { undecided, reached, refuted };

struct RaceQuestion {
  int64_t m, n, blocks;
  const float* partials;    // [blocks][m][n], fp16 numbers
  const uint16_t* outputs;  // [m][n], bits of fp16
  const uint8_t* known;     // [n]: whether the column's outputs are given
  int64_t tries;            // per output, beyond kExactBlocks
  uint64_t seed;            // of the search; a witness found does not depend on it
};

struct RaceExplanation {
  bool exact;                   // units were decided by trying every order
  std::vector<int64_t> orders;  // [m][ceil(n / 64)][2]: how many orders explain the unit, the first two addends
                                // counted in one order only (their sum is the same); empty unless exact
  std::vector<int8_t> first;    // [m][ceil(n / 64)][2][blocks]: the first of them; empty unless exact
  std::vector<Reach> reach;     // [m][n]
};

RaceExplanation explain_race(const RaceQuestion& question, const ExecutorContext& context);

}  // namespace qf
