// How CUTLASS's stream-K scheduler cuts Machete's tiles along K: facts of the public scheduler, confirmed on 132 SMs.
#pragma once

#include <string>
#include <vector>

#include "kernels/gemm.h"

namespace qf {

inline constexpr int64_t kMacheteTileK = 64;

struct MacheteTile {
  int64_t n, m, cluster;
};

struct MacheteSchedule {
  MacheteTile tile;
  int64_t row_tiles, column_tiles;         // column_tiles is rounded up to whole clusters
  std::string kind;                        // in words
  std::vector<std::vector<int64_t>> cuts;  // [row tile * column_tiles + column tile]: k-tiles 0, c1, c2, ..., K / 64
};

MacheteSchedule machete_schedule(const Problem& problem, const MacheteTile& tile, int64_t sm_count);

}  // namespace qf
