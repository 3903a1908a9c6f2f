// How far two sets of logprob rows are apart: by bits, by value, and by the prior experiment's L2.
#pragma once

#include <cstdint>
#include <vector>

#include "forensics/rows.h"

namespace qf {

/// One entry of the first rows whose bits the second rows do not have.
struct EntryDifference {
  int64_t row = 0;
  int64_t first_entry = 0;    // index into the first rows' entries
  int64_t second_entry = -1;  // index into the second rows' entries; meaningful when found
  bool found = false;         // whether the second rows have that id at all
};

/// Per row, in the order of the rows. max_abs and l2 are 0 where `shared` and `l2_shared` are 0.
struct RowDistances {
  std::vector<int64_t> compared;   // entries of the first rows that were looked up
  std::vector<int64_t> differing;  // those with other bits, absent ones included
  std::vector<int64_t> missing;    // those absent from the second row
  std::vector<double> max_abs;     // largest |first - second| over ids present in both
  std::vector<int64_t> shared;     // ids present in both
  std::vector<double> l2;  // sqrt of the sum of squares over the first row's l2_top largest that are present in both
  std::vector<int64_t> l2_shared;  // how many of those there were
  bool any_difference = false;
  EntryDifference first;  // valid when any_difference
};

/// Compares rows 0 .. rows - 1. Where the two targets of a row are equal all entries of the first row count; where they
/// are not, only its top_k largest do (an id that only the first side asked for says nothing about the second).
/// Differences are taken in double, where a difference of two fp32 numbers of similar size is exact.
RowDistances compare_rows(const LogprobRowsView& first, const LogprobRowsView& second, int64_t rows, int64_t top_k,
                          int64_t l2_top);

/// Chosen id's logprob minus the largest other one of its row: how close the token was to being another.
/// Throws Error when the id is not in the row or the row has no other entry.
double chosen_margin(const LogprobRowsView& view, int64_t row, int32_t chosen);

/// First index at which the ids differ, or min(length) when one is a prefix of the other.
int64_t first_divergence(std::span<const int32_t> first, std::span<const int32_t> second);

}  // namespace qf
