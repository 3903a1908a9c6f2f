#include "kernels/machete_schedule.h"

#include <algorithm>

#include "kernels/parts.h"

namespace qf {
namespace {

constexpr int64_t kSmallestPiece = 8;  // k-tiles

struct Grid {
  int64_t k_tiles, columns, rows, cluster, wave;

  int64_t tiles() const { return columns * rows; }
  /// Whether neighbouring cluster tiles of the linear order share their columns (and not their rows).
  bool rows_fastest() const { return rows <= columns; }
};

/// Tiles that are cut along K; the rest take whole K.
int64_t cut_tiles(const Grid& g) {
  const int64_t full = g.tiles() / g.wave, total = ceil_div(g.tiles(), g.wave);
  if (full == total || g.k_tiles <= kSmallestPiece || 2 * (g.tiles() - full * g.wave) >= g.wave) return 0;
  const int64_t cut = g.tiles() - (full > 1 ? full - 1 : 0) * g.wave;
  return cut - cut % g.cluster;
}

/// Groups of units, each with its own share of the tiles: no more than there are tiles along the fast direction.
int64_t choose_groups(const Grid& g, int64_t cut, int64_t units) {
  const int64_t cluster_tiles = cut / g.cluster, cluster_units = units / g.cluster;
  const int64_t most = std::min<int64_t>(8, g.rows_fastest() ? g.rows : g.columns / g.cluster);
  const auto large_enough = [&](int64_t groups) {
    return cluster_units % groups == 0 &&
           cluster_tiles / groups * g.cluster * g.k_tiles / (units / groups) >= kSmallestPiece;
  };
  for (int64_t groups = most; groups >= 2; --groups) {
    if (cluster_tiles % groups == 0 && large_enough(groups)) return groups;
  }
  for (int64_t groups = most; groups >= 2; --groups) {
    if (large_enough(groups)) return groups;
  }
  return 1;
}

struct Range {
  int64_t begin, end;
};

/// Moves the ends of a unit's range off pieces shorter than kSmallestPiece; the neighbour's rule agrees.
Range without_short_pieces(Range range, int64_t k_tiles) {
  const auto snap = [&](int64_t at) {
    const int64_t rest = at % k_tiles;
    if (rest < kSmallestPiece) return at - rest;
    return rest > k_tiles - kSmallestPiece ? at + k_tiles - rest : at;
  };
  return {snap(range.begin), snap(range.end)};
}

/// cuts[cluster tile] for the first `cut / cluster` cluster tiles.
void stream_k(const Grid& g, int64_t cut, int64_t units, int64_t groups, std::vector<std::vector<int64_t>>& cuts) {
  const int64_t cluster_tiles = cut / g.cluster, per_group = units / groups;
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t tiles = cluster_tiles / groups + (group < cluster_tiles % groups);
    const int64_t work = tiles * g.cluster * g.k_tiles, share = work / per_group;
    const int64_t larger = (work - share * per_group) / g.cluster;
    for (int64_t i = 0; i < units / g.cluster / groups; ++i) {
      const int64_t start = share * i + std::min(i, larger);
      const Range range = without_short_pieces({start, start + share + (i < larger)}, g.k_tiles);
      if (range.begin >= range.end || range.begin % g.k_tiles == 0) continue;
      cuts[static_cast<size_t>(range.begin / g.k_tiles * groups + group)].push_back(range.begin % g.k_tiles);
    }
  }
}

std::vector<int64_t> even_cuts(int64_t k_tiles, int64_t pieces) {
  std::vector<int64_t> cuts = {0};
  for (int64_t i = 0; i + 1 < pieces; ++i) cuts.push_back(cuts.back() + k_tiles / pieces + (i < k_tiles % pieces));
  return cuts;
}

}  // namespace

MacheteSchedule machete_schedule(const Problem& p, const MacheteTile& tile, int64_t sm_count) {
  const int64_t c = tile.cluster;
  const Grid g{p.k / kMacheteTileK, ceil_div(ceil_div(p.n, tile.n), c) * c, ceil_div(p.m, tile.m), c,
               wave_size(sm_count, c)};
  const int64_t cut = cut_tiles(g);
  int64_t units = std::min(g.wave, g.k_tiles * cut / kSmallestPiece);
  units -= units % c;
  MacheteSchedule schedule{tile, g.rows, g.columns, "whole walks", {}};
  std::vector<std::vector<int64_t>> cuts(static_cast<size_t>(g.tiles() / c), {0});  // per cluster tile
  if (cut > 0 && units > 0) {
    if (units > cut && units % cut == 0) {
      schedule.kind = "split-K in " + std::to_string(units / cut);
      std::fill_n(cuts.begin(), cut / c, even_cuts(g.k_tiles, units / cut));
    } else {
      const int64_t groups = choose_groups(g, cut, units);
      schedule.kind = "stream-K over " + std::to_string(units) + " units in " + std::to_string(groups) + " groups";
      stream_k(g, cut, units, groups, cuts);
    }
  }
  schedule.cuts.resize(static_cast<size_t>(g.tiles()));
  const int64_t cluster_columns = g.columns / c;
  for (int64_t q = 0; q < g.tiles() / c; ++q) {
    std::vector<int64_t>& tile_cuts = cuts[static_cast<size_t>(q)];
    std::sort(tile_cuts.begin(), tile_cuts.end());
    tile_cuts.push_back(g.k_tiles);
    const int64_t row = g.rows_fastest() ? q % g.rows : q / cluster_columns;
    const int64_t column = g.rows_fastest() ? q / g.rows : q % cluster_columns;
    for (int64_t j = 0; j < c; ++j) schedule.cuts[static_cast<size_t>(row * g.columns + column * c + j)] = tile_cuts;
  }
  return schedule;
}

}  // namespace qf
