#include "kernels/race/explain_race.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/half.h"
#include "kernels/emulate/convert.h"
#include "kernels/race/reach_one.h"

namespace qf {
namespace {

constexpr int kUnitOutputs = 32;  // 64 columns, every other pair

/// The addends and outputs of one unit, gathered side by side; absent and unknown columns hold zeros.
struct Unit {
  std::array<std::array<float, kUnitOutputs>, kExactBlocks> addends{};
  std::array<uint16_t, kUnitOutputs> outputs{};
};

Unit gather(const RaceQuestion& q, int64_t row, int64_t column_block, int parity) {
  Unit unit;
  int lane = 0;
  for (int64_t c = column_block * 64; c < std::min(q.n, column_block * 64 + 64); ++c) {
    if (((c >> 1) & 1) != parity || !q.known[c]) continue;
    for (int64_t b = 0; b < q.blocks; ++b) {
      unit.addends[static_cast<size_t>(b)][static_cast<size_t>(lane)] = q.partials[(b * q.m + row) * q.n + c];
    }
    unit.outputs[static_cast<size_t>(lane++)] = q.outputs[row * q.n + c];
  }
  return unit;
}

/// Every order of the blocks, depth first: a prefix's sums are shared by the orders that begin with it.
class OrderSearch {
 public:
  OrderSearch(Isa isa, const Unit& unit, int blocks) : isa_(isa), unit_(unit), blocks_(blocks) {}

  int64_t count() {
    sums_[0].fill(0.0f);
    descend(0, 0);
    return found_;
  }
  const std::array<int8_t, kExactBlocks>& first() const { return first_; }

 private:
  void descend(int depth, unsigned used) {
    if (depth == blocks_) {
      std::array<uint16_t, kUnitOutputs> bits;
      store_span(isa_, Format::fp16, sums_[static_cast<size_t>(depth)].data(), bits.data(), kUnitOutputs);
      if (bits != unit_.outputs) return;
      if (found_++ == 0) first_ = order_;
      return;
    }
    for (int b = 0; b < blocks_; ++b) {
      if (used & (1u << b)) continue;
      if (depth == 1 && b < order_[0]) continue;  // a + b = b + a
      order_[static_cast<size_t>(depth)] = static_cast<int8_t>(b);
      const auto& from = sums_[static_cast<size_t>(depth)];
      auto& to = sums_[static_cast<size_t>(depth) + 1];
      for (size_t i = 0; i < kUnitOutputs; ++i) to[i] = from[i] + unit_.addends[static_cast<size_t>(b)][i];
      narrow_span(isa_, Narrow::fp16, to.data(), kUnitOutputs);
      descend(depth + 1, used | (1u << b));
    }
  }

  Isa isa_;
  const Unit& unit_;
  int blocks_;
  std::array<std::array<float, kUnitOutputs>, kExactBlocks + 1> sums_{};
  std::array<int8_t, kExactBlocks> order_{}, first_{};
  int64_t found_ = 0;
};

void explain_unit(const RaceQuestion& q, Isa isa, int64_t index, RaceExplanation& out) {
  const int64_t column_blocks = (q.n + 63) / 64;
  const int64_t row = index / (2 * column_blocks), block = index / 2 % column_blocks;
  const int parity = static_cast<int>(index % 2);
  const Unit unit = gather(q, row, block, parity);
  OrderSearch search(isa, unit, static_cast<int>(q.blocks));
  const int64_t orders = search.count();
  out.orders[static_cast<size_t>(index)] = orders;
  std::copy_n(search.first().begin(), q.blocks, out.first.begin() + index * q.blocks);
  for (int64_t c = block * 64; c < std::min(q.n, block * 64 + 64); ++c) {
    if (((c >> 1) & 1) == parity && q.known[c])
      out.reach[static_cast<size_t>(row * q.n + c)] = orders ? Reach::reached : Reach::refuted;
  }
}

}  // namespace

RaceExplanation explain_race(const RaceQuestion& q, const ExecutorContext& context) {
  require(q.blocks >= 1 && q.blocks < 128, "explain_race: ", q.blocks, " blocks (K from 1 to 16256 is supported)");
  RaceExplanation out;
  out.exact = q.blocks <= kExactBlocks;
  out.reach.assign(static_cast<size_t>(q.m * q.n), Reach::undecided);
  if (out.exact) {
    const int64_t units = q.m * ((q.n + 63) / 64) * 2;
    out.orders.assign(static_cast<size_t>(units), 0);
    out.first.assign(static_cast<size_t>(units * q.blocks), 0);
    context.pool->run(units, [&](int64_t index) { explain_unit(q, context.isa, index, out); });
  } else {
    context.pool->run(q.m, [&](int64_t row) { reach_row(q, context.isa, row, out.reach.data() + row * q.n); });
  }
  return out;
}

}  // namespace qf
