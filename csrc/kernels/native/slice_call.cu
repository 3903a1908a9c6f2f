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

SliceTile slice_tile(int64_t m, int64_t n, int sm_count, int few_row_columns, const ManyRowTiles& many) {
  const int64_t tiles = (n + kTileColumns - 1) / kTileColumns;
  const auto fills = [&](int columns, double times) {
    return tiles % columns == 0 && static_cast<double>(tiles / columns) >= times * sm_count;
  };
  if (m <= 8) return {fills(few_row_columns, 4.0) ? few_row_columns : 1, 1};
  if (m <= 32) return {fills(2, 1.2) ? 2 : 1, m <= 16 ? 2 : 4};
  if (fills(many.wide.columns, 2.0)) return many.wide;
  return tiles % many.narrow.columns == 0 ? many.narrow : SliceTile{1, 4};
}

}  // namespace qf::cuda
