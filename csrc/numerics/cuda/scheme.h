// Which way of carrying out a step serves an emulated unit on this GPU. See step_schemes.cuh.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "numerics/matrix_unit.h"

namespace qf::cuda {

enum class Scheme : uint8_t { native, pinned, fp64, converted, definition };
constexpr Scheme kSchemes[] = {Scheme::native, Scheme::pinned, Scheme::fp64, Scheme::converted, Scheme::definition};

/// The unit of the GPU itself (mma.sync, 16-bit inputs), as device_profiles.def has it. An instruction over 16 k is two
/// steps where the unit fuses 8.
struct OwnUnit {
  int products, fraction_bits;
  bool fp64;  // FP64 tensor cores at half of FP32's rate or more; elsewhere they are 1/32 of it or less
};

/// By compute capability; products = 0 for one that no profile describes.
inline OwnUnit own_unit(int compute_capability) {
  if (compute_capability == 90 || compute_capability == 100) return {16, 25, true};
  if (compute_capability >= 80 && compute_capability < 90) return {8, 24, compute_capability == 80};
  return {0, 0, false};
}

/// Sums of integers on a grid (grid_step.cuh) have a form for the unit.
inline bool grid_serves(const MatrixUnit& unit) {
  const bool products = unit.products == 4 || unit.products == 8 || unit.products == 16;
  const bool rounding = unit.rounding == Rounding::fp32_toward_zero || unit.rounding == Rounding::fp16_nearest_even;
  return products && rounding && unit.fraction_bits >= 20 && unit.fraction_bits <= 25;
}

inline Scheme scheme_for(const MatrixUnit& unit, OwnUnit own) {
  if (unit.products == own.products && unit.fraction_bits == own.fraction_bits) return Scheme::native;
  const bool fits = unit.products == 8 || unit.products == 4;
  if (own.products == 16 && fits && unit.fraction_bits < own.fraction_bits) return Scheme::pinned;
  if (!grid_serves(unit)) return Scheme::definition;
  return own.fp64 ? Scheme::fp64 : Scheme::converted;
}

inline const char* scheme_name(Scheme scheme) {
  switch (scheme) {
    case Scheme::native: return "native";
    case Scheme::pinned: return "pinned";
    case Scheme::fp64: return "fp64";
    case Scheme::converted: return "converted";
    case Scheme::definition: return "definition";
  }
  return "?";
}

/// Inverse of scheme_name; throws Error for an unknown name.
inline Scheme parse_scheme(std::string_view name) {
  for (const Scheme scheme : kSchemes) {
    if (name == scheme_name(scheme)) return scheme;
  }
  throw Error("unknown scheme '" + std::string(name) + "'; one of: native, pinned, fp64, converted, definition");
}

}  // namespace qf::cuda
