// Equivalence classes of things that are exactly the same (the prior experiment's "kernel classes", with distance 0).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace qf {

/// same[i * count + j] != 0 joins i and j, transitively. Returns the class of each, numbered by first member.
std::vector<int64_t> equivalence_classes(std::span<const uint8_t> same, int64_t count);

}  // namespace qf
