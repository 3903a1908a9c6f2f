// Which k the eight slices of awq and tinygemm walk.
#pragma once

#include "base/host_device.h"

namespace qf::cuda {

constexpr int kSlices = 8, kUnit = 32, kTileColumns = 16, kTileRows = 8;

/// Chunks of `per` units of 32 k go round the slices; what is left over goes to them in pieces of `piece` k (0: nothing
/// is left over).
struct SliceMap {
  int k, per, piece;

  QF_HD int chunk() const { return per * kUnit; }
  QF_HD int full_units(int slice) const {
    const int chunks = k / chunk();
    return slice < chunks ? (chunks - slice + kSlices - 1) / kSlices * per : 0;
  }
  QF_HD int rest_begin(int slice) const { return k / chunk() * chunk() + slice * piece; }
  QF_HD int units(int slice) const {
    const int begin = rest_begin(slice), end = begin + piece < k ? begin + piece : k;
    return full_units(slice) + (piece > 0 && begin < end ? (end - begin + kUnit - 1) / kUnit : 0);
  }
  QF_HD int first_k(int slice, int unit) const {
    const int full = full_units(slice);
    if (unit >= full) return rest_begin(slice) + (unit - full) * kUnit;
    return ((unit / per * kSlices + slice) * per + unit % per) * kUnit;
  }
  /// Slice 0 has the most.
  QF_HD int pairs() const { return (units(0) + 1) / 2; }
};

}  // namespace qf::cuda
