#include "kernels/race/reach_one.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/half.h"
#include "kernels/emulate/convert.h"

namespace qf {
namespace {

/// Orders tried on a whole row at once before single outputs are searched.
constexpr int64_t kSharedTries = 256;

/// xorshift64*: the search needs variety, not quality.
struct Draw {
  uint64_t state;
  uint64_t below(uint64_t bound) {
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return (state * 0x2545F4914F6CDD1Du >> 32) * bound >> 32;
  }
  void shuffle(std::vector<int32_t>& order) {
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[below(i)]);
  }
};

float sum_in_order(const std::vector<float>& addends, const std::vector<int32_t>& order) {
  float sum = 0.0f;
  for (const int32_t b : order) sum = round_to_half(sum + addends[static_cast<size_t>(b)]);
  return sum;
}

/// No order can be farther from the exact sum: each of B roundings moves by at most 2^-11 of a sum that never exceeds
/// S * (1 + 2^-11)^B, S the sum of magnitudes (fp16 sums below the normal range are exact).
bool out_of_reach(const std::vector<float>& addends, float target) {
  double exact = 0.0, magnitude = 0.0;
  for (const float x : addends) exact += x, magnitude += std::fabs(x);
  if (!std::isfinite(exact) || !std::isfinite(target)) return false;
  const double blocks = static_cast<double>(addends.size());
  return std::fabs(target - exact) > blocks * 0x1p-11 * magnitude * std::pow(1 + 0x1p-11, blocks);
}

/// Hill climbing over orders: swap two addends, keep what comes no farther from the target.
bool climb(const std::vector<float>& addends, float target, int64_t tries, Draw& draw) {
  std::vector<int32_t> order(addends.size());
  std::iota(order.begin(), order.end(), 0);
  float distance = HUGE_VALF;
  for (int64_t i = 0; i < tries; ++i) {
    if (i % 512 == 0) {
      draw.shuffle(order);
      distance = std::fabs(sum_in_order(addends, order) - target);
    }
    if (distance == 0.0f) return true;
    const size_t a = draw.below(order.size()), b = draw.below(order.size());
    std::swap(order[a], order[b]);
    const float moved = std::fabs(sum_in_order(addends, order) - target);
    if (moved <= distance) {
      distance = moved;
    } else {
      std::swap(order[a], order[b]);
    }
  }
  return distance == 0.0f;
}

/// Random orders, each tried on all columns of the row.
void try_shared_orders(const RaceQuestion& q, Isa isa, int64_t row, Draw& draw, Reach* reach) {
  std::vector<int32_t> order(static_cast<size_t>(q.blocks));
  std::iota(order.begin(), order.end(), 0);
  std::vector<float> sum(static_cast<size_t>(q.n));
  std::vector<uint16_t> bits(static_cast<size_t>(q.n));
  for (int64_t i = 0; i < std::min(q.tries, kSharedTries); ++i) {
    std::fill(sum.begin(), sum.end(), 0.0f);
    for (const int32_t b : order) {
      const float* addend = q.partials + (b * q.m + row) * q.n;
      for (size_t c = 0; c < sum.size(); ++c) sum[c] += addend[c];
      narrow_span(isa, Narrow::fp16, sum.data(), q.n);
    }
    store_span(isa, Format::fp16, sum.data(), bits.data(), q.n);
    for (int64_t c = 0; c < q.n; ++c) {
      if (q.known[c] && bits[static_cast<size_t>(c)] == q.outputs[row * q.n + c]) reach[c] = Reach::reached;
    }
    draw.shuffle(order);
  }
}

}  // namespace

void reach_row(const RaceQuestion& q, Isa isa, int64_t row, Reach* reach) {
  Draw draw{(q.seed ^ (static_cast<uint64_t>(row) * 0x9E3779B97F4A7C15u)) | 1u};
  try_shared_orders(q, isa, row, draw, reach);
  std::vector<float> addends(static_cast<size_t>(q.blocks));
  for (int64_t c = 0; c < q.n; ++c) {
    if (reach[c] == Reach::reached || !q.known[c]) continue;
    for (int64_t b = 0; b < q.blocks; ++b) addends[static_cast<size_t>(b)] = q.partials[(b * q.m + row) * q.n + c];
    const float target = half_to_float(q.outputs[row * q.n + c]);
    if (out_of_reach(addends, target)) {
      reach[c] = Reach::refuted;
    } else if (climb(addends, target, q.tries, draw)) {
      reach[c] = Reach::reached;
    }
  }
}

}  // namespace qf
