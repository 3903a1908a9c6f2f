// Which way of carrying out a step serves an emulated unit on this GPU. See step_schemes.cuh.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "numerics/matrix_unit.h"

namespace qf::cuda {

enum class Scheme : uint8_t { native, pinned, definition };

/// The unit of the GPU itself (mma.sync, 16-bit inputs), as device_profiles.def has it. An instruction over 16 k is two
/// steps where the unit fuses 8.
struct OwnUnit {
  int products, fraction_bits;
};

/// By compute capability; products = 0 for one that no profile describes: only Definition serves there.
inline OwnUnit own_unit(int compute_capability) {
  if (compute_capability == 90 || compute_capability == 100) return {16, 25};
  if (compute_capability >= 80 && compute_capability < 90) return {8, 24};
  return {0, 0};
}

inline Scheme scheme_for(const MatrixUnit& unit, OwnUnit own) {
  if (unit.products == own.products && unit.fraction_bits == own.fraction_bits) return Scheme::native;
  if (own.products != 16) return Scheme::definition;
  const bool fits = unit.products == 8 || unit.products == 4;
  return fits && unit.fraction_bits < own.fraction_bits ? Scheme::pinned : Scheme::definition;
}

inline const char* scheme_name(Scheme scheme) {
  switch (scheme) {
    case Scheme::native: return "native";
    case Scheme::pinned: return "pinned";
    case Scheme::definition: return "definition";
  }
  return "?";
}

/// Inverse of scheme_name; throws Error for an unknown name.
inline Scheme parse_scheme(std::string_view name) {
  for (const Scheme scheme : {Scheme::native, Scheme::pinned, Scheme::definition}) {
    if (name == scheme_name(scheme)) return scheme;
  }
  throw Error("unknown scheme '" + std::string(name) + "'; one of: native, pinned, definition");
}

}  // namespace qf::cuda
