#include "kernels/native/slice_call.cuh"

#include <bit>

namespace qf::cuda {

std::string refuse_slices(const Plan& plan) {
  if (plan.trees.size() != 1 || plan.regions.size() != 1) return "takes one tree for all outputs";
  if (plan.group != plan.k && (plan.group % kUnit != 0 || !std::has_single_bit(static_cast<uint64_t>(plan.group)))) {
    return "takes groups of 32, 64, 128, ... or one group";
  }
  if (plan.file_order) return "takes no act-order";
  if (plan.epilogue.channel_scale) return "takes scales inside the sum";
  if (plan.epilogue.bias != BiasRule::none && plan.epilogue.bias != BiasRule::after_rounding) {
    return "adds a bias to the rounded result";
  }
  if (plan.epilogue.output != plan.activations) return "writes the format of the activations";
  if (plan.k > (1 << 20) || plan.n > (1 << 24)) return "takes K up to 2^20 and N up to 2^24";
  return "";
}

int group_shift(const Plan& plan) {
  return plan.group == plan.k ? 30 : std::countr_zero(static_cast<uint64_t>(plan.group / kUnit));
}

SliceTile slice_tile(int64_t m, int64_t n, int sm_count) {
  const int rows = m <= 8 ? 1 : (m <= 16 ? 2 : (m <= 32 ? 4 : 8));
  const int64_t tiles = (n + kTileColumns - 1) / kTileColumns;
  const auto fits = [&](int columns) { return tiles % columns == 0 && tiles / columns >= 2 * sm_count; };
  if (rows <= 2 && fits(4)) return {4, rows};
  return {fits(2) ? 2 : 1, rows};
}

}  // namespace qf::cuda
