// Small integer functions that more than one layer needs.
#pragma once
// nvcc: u[0] = static_cast<uint32_t>(qf::ceil_div(u[1], 3) + static_cast<int64_t>(qf::mix_bits(u[2])));

#include <cstdint>

#include "base/host_device.h"

namespace qf {

/// ceil(a / b), a >= 0, b > 0.
QF_HD inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// splitmix64's step (Steele, Lea, Flood 2014): a full-period mixer, enough to draw numbers that look unrelated.
QF_HD inline uint64_t mix_bits(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

/// Number `index` of splitmix64's sequence from `seed`.
inline uint64_t sequence_number(uint64_t seed, uint64_t index) { return mix_bits(seed + index * 0x9E3779B97F4A7C15u); }

}  // namespace qf
