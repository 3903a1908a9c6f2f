#include "forensics/distances.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/bits.h"
#include "base/error.h"

namespace qf {
namespace {

/// The entries of one row by id, so that order within a row plays no part in a comparison.
class RowIndex {
 public:
  void fill(const LogprobRowsView& view, int64_t row) {
    by_id_.clear();
    for (int64_t entry = view.begin(row); entry < view.end(row); ++entry) by_id_.emplace_back(view.id(entry), entry);
    std::sort(by_id_.begin(), by_id_.end());
  }

  /// Entry of that id, or -1.
  int64_t find(int32_t id) const {
    const auto at = std::lower_bound(by_id_.begin(), by_id_.end(), std::pair<int32_t, int64_t>(id, 0));
    return at != by_id_.end() && at->first == id ? at->second : -1;
  }

 private:
  std::vector<std::pair<int32_t, int64_t>> by_id_;
};

void resize(RowDistances& out, size_t rows) {
  for (auto* counts : {&out.compared, &out.differing, &out.missing, &out.shared, &out.l2_shared})
    counts->assign(rows, 0);
  out.max_abs.assign(rows, 0.0);
  out.l2.assign(rows, 0.0);
}

void compare_row(const LogprobRowsView& first, const LogprobRowsView& second, const RowIndex& index, int64_t row,
                 int64_t entries, int64_t l2_top, RowDistances& out) {
  const size_t at = static_cast<size_t>(row);
  const int64_t begin = first.begin(row);
  out.compared[at] = entries;
  double squares = 0.0;
  for (int64_t entry = begin; entry < begin + entries; ++entry) {
    const int64_t other = index.find(first.id(entry));
    const bool found = other >= 0;
    if (found) {
      const double d = static_cast<double>(first.logprob(entry)) - static_cast<double>(second.logprob(other));
      out.max_abs[at] = std::max(out.max_abs[at], std::fabs(d));
      ++out.shared[at];
      if (entry - begin < l2_top) {
        squares += d * d;
        ++out.l2_shared[at];
      }
    } else {
      ++out.missing[at];
    }
    if (found && float_bits(first.logprob(entry)) == float_bits(second.logprob(other))) continue;
    ++out.differing[at];
    if (!out.any_difference) out.first = {row, entry, other, found};
    out.any_difference = true;
  }
  out.l2[at] = std::sqrt(squares);
}

}  // namespace

RowDistances compare_rows(const LogprobRowsView& first, const LogprobRowsView& second, int64_t rows, int64_t top_k,
                          int64_t l2_top) {
  check_rows(first, "first rows");
  check_rows(second, "second rows");
  require(rows >= 0 && rows <= first.rows() && rows <= second.rows(), "cannot compare ", rows, " rows of ",
          first.rows(), " and ", second.rows());
  require(top_k >= 1, "top_k must be at least 1, got ", top_k);
  require(l2_top >= 1 && l2_top <= top_k, "l2_top must be in 1 .. top_k (", top_k, "), got ", l2_top);
  RowDistances out;
  resize(out, static_cast<size_t>(rows));
  RowIndex index;
  for (int64_t row = 0; row < rows; ++row) {
    index.fill(second, row);
    const int64_t all = first.end(row) - first.begin(row);
    const bool same_target = first.target(row) == second.target(row);
    compare_row(first, second, index, row, same_target ? all : std::min(all, top_k), l2_top, out);
  }
  return out;
}

double chosen_margin(const LogprobRowsView& view, int64_t row, int32_t chosen) {
  require(row >= 0 && row < view.rows(), "row ", row, " of ", view.rows());
  bool has_chosen = false, has_other = false;
  double own = 0.0, best = 0.0;
  for (int64_t entry = view.begin(row); entry < view.end(row); ++entry) {
    const double value = static_cast<double>(view.logprob(entry));
    if (view.id(entry) == chosen) {
      own = value;
      has_chosen = true;
    } else if (!has_other || value > best) {
      best = value;
      has_other = true;
    }
  }
  require(has_chosen && has_other, "row ", row, " has no margin for id ", chosen, " (",
          has_chosen ? "no other entry" : "id not in the row", ")");
  return own - best;
}

int64_t first_divergence(std::span<const int32_t> first, std::span<const int32_t> second) {
  const size_t length = std::min(first.size(), second.size());
  const auto [at, other] =
      std::mismatch(first.begin(), first.begin() + static_cast<std::ptrdiff_t>(length), second.begin());
  return at - first.begin();
}

}  // namespace qf
