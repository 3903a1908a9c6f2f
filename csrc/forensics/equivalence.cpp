#include "forensics/equivalence.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace qf {
namespace {

int64_t find_root(std::vector<int64_t>& parent, int64_t item) {
  while (parent[static_cast<size_t>(item)] != item) {
    int64_t& up = parent[static_cast<size_t>(item)];
    up = parent[static_cast<size_t>(up)];
    item = up;
  }
  return item;
}

}  // namespace

std::vector<int64_t> equivalence_classes(std::span<const uint8_t> same, int64_t count) {
  require(count >= 0 && same.size() == static_cast<size_t>(count) * static_cast<size_t>(count), "expected ", count,
          " x ", count, " flags, found ", same.size());
  const size_t n = static_cast<size_t>(count);
  std::vector<int64_t> parent(n);
  std::iota(parent.begin(), parent.end(), int64_t{0});
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t j = 0; j < count; ++j) {
      if (!same[static_cast<size_t>(i) * n + static_cast<size_t>(j)]) continue;
      const int64_t a = find_root(parent, i), b = find_root(parent, j);
      parent[static_cast<size_t>(std::max(a, b))] = std::min(a, b);
    }
  }
  std::vector<int64_t> classes(n), number(n, -1);
  int64_t next = 0;
  for (int64_t i = 0; i < count; ++i) {
    int64_t& of_root = number[static_cast<size_t>(find_root(parent, i))];
    if (of_root < 0) of_root = next++;
    classes[static_cast<size_t>(i)] = of_root;
  }
  return classes;
}

}  // namespace qf
