// vLLM's Marlin (partition of late 2025): rows go out in launches, each launch cuts its tiles' k-tiles in equal stripes
// over the SMs; a block's warp rows split each k-tile; slices of one tile are added from the largest k down.
#include <algorithm>
#include <array>
#include <map>

#include "base/error.h"
#include "kernels/parts.h"
#include "kernels/striped_tree.h"
#include "kernels/table.h"

namespace qf {
namespace {

struct Tile {
  int64_t k, n;
};

/// Bytes of shared memory of one block with 4-bit weights and 4 pipeline stages (formula of the public source; from 99
/// KiB per block on it never excludes a tile of the lists below).
int64_t shared_memory(const Tile& tile, int64_t row_tiles, int64_t group) {
  constexpr int64_t kStages = 4;
  const int64_t rows = row_tiles * 16;
  const int64_t activations = kStages * rows * tile.k * 2;
  const int64_t weights = kStages * tile.k * tile.n / 2;
  const int64_t reduction = rows * (tile.n + 8) * 2, bias = tile.n * 2;
  const int64_t shared = std::max({weights, reduction, std::min(weights, reduction) + bias});
  const int64_t scales = kStages * ceil_div(tile.k, group) * tile.n * 2;
  return shared + activations + scales + scales / 4;
}

Tile choose_tile(const Problem& p, const DeviceNumbers& device, int64_t rows, int64_t row_tiles) {
  constexpr std::array<Tile, 3> kSmall = {{{128, 128}, {64, 128}, {128, 64}}},
                                kLarge = {{{64, 256}, {64, 128}, {128, 64}}};
  const auto fits = [&](const Tile& t) {
    return p.k % t.k == 0 && p.n % t.n == 0 &&
           shared_memory(t, row_tiles, p.group) <= device.shared_memory_per_block - 512;
  };
  const auto& list = row_tiles == 1 ? kSmall : kLarge;
  const auto found = std::find_if(list.begin(), list.end(), fits);
  require(found != list.end(), "marlin: no tile fits K = ", p.k, ", N = ", p.n, ", ", device.shared_memory_per_block,
          " bytes of shared memory (K and N must be multiples of 64 and 128, either way round)");
  const Tile narrow{128, 64};
  const int64_t blocks = p.n / found->n * ceil_div(rows, 16 * row_tiles);
  return blocks * 4 <= device.sm_count && fits(narrow) ? narrow : *found;
}

/// One launch over rows [begin, begin + rows).
void plan_launch(Plan& plan, const Problem& p, const DeviceNumbers& device, int64_t begin, int64_t rows, Narrow hop) {
  const int64_t row_tiles = std::min<int64_t>(ceil_div(rows, 16), 4);
  const Tile tile = choose_tile(p, device, rows, row_tiles);
  const int64_t block_rows = rows <= 8 ? 8 : 16 * row_tiles;
  const int64_t parallel = rows > block_rows ? rows / block_rows : 1;
  const int64_t k_tiles = p.k / tile.k, n_tiles = p.n / tile.n, tiles = parallel * n_tiles, sms = device.sm_count;
  int64_t striped = tiles;  // the last tiles, which share their k with other blocks
  if (tiles > sms) {
    striped = tiles % sms;
    if (3 * striped <= sms) striped += sms;
  }
  int64_t stripe = ceil_div(k_tiles * striped, sms);
  if (p.group != p.k && p.group >= tile.k) stripe = ceil_div(stripe, p.group / tile.k) * (p.group / tile.k);
  std::map<std::vector<int64_t>, int32_t> known;
  for (int64_t t = 0; t < tiles; ++t) {
    std::vector<int64_t> cuts = {0};
    if (const int64_t i = t - (tiles - striped); i >= 0) {
      for (int64_t x = ceil_div(i * k_tiles + 1, stripe) * stripe; x < (i + 1) * k_tiles; x += stripe)
        cuts.push_back(x - i * k_tiles);
    }
    cuts.push_back(k_tiles);
    auto [entry, fresh] = known.try_emplace(cuts, -1);
    if (fresh) entry->second = intern_tree(plan, striped_tree(cuts, tile.k, hop));
    const int64_t row = t / n_tiles * block_rows, column = t % n_tiles * tile.n;
    add_region(plan, {begin + row, begin + std::min(rows, row + block_rows), column, column + tile.n, entry->second});
  }
  plan.facts.push_back("rows " + std::to_string(begin) + ".." + std::to_string(begin + rows - 1) + ": tile k" +
                       std::to_string(tile.k) + " n" + std::to_string(tile.n) + ", " + std::to_string(tiles) +
                       " tiles of " + std::to_string(k_tiles) + " k-tiles, " + std::to_string(striped) +
                       " striped by " + std::to_string(stripe) + " over " + std::to_string(sms) + " SMs");
}

}  // namespace

Plan plan_marlin(const Problem& problem, const DeviceNumbers& device, const KernelOptions& options) {
  require_format("marlin", problem.format, {Format::fp16, Format::bf16});
  require(problem.group == problem.k || problem.group == 32 || problem.group == 64 || problem.group == 128,
          "marlin: group size must be -1, 32, 64 or 128, got ", problem.group);
  Plan plan = begin_plan("marlin", problem, device, options);
  plan.sentence = "K striped over SMs; warp rows added in a block, slices from the largest k down, partials " +
                  std::string(options.fp32_reduce ? "fp32" : format_name(problem.format));
  plan.unconfirmed.clear();  // the bias of a kernel with groups is recorded
  if (problem.group == problem.k) {
    plan.weight = WeightRule::integer;
    plan.epilogue.channel_scale = true;
    if (options.bias) {
      plan.epilogue.bias = BiasRule::fused_scale;
      plan.unconfirmed.push_back(
          "bias: fused with the column's scale, except where an H200's compiler did not (8 x 8 corners)");
    }
  }
  const Narrow hop = options.fp32_reduce ? Narrow::none : narrow_of(problem.format);
  for (int64_t begin = 0; begin < problem.m;) {
    const int64_t rest = problem.m - begin;
    const int64_t par = std::min<int64_t>(rest / 64, problem.n <= 4096 ? 128 : 16);
    const int64_t rows = par > 0 ? 64 * par : rest;
    plan_launch(plan, problem, device, begin, rows, hop);
    begin += rows;
  }
  note_device(plan, device);
  return plan;
}

}  // namespace qf
