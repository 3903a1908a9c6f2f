#include "operators/cuda/flash_items.h"

#include <algorithm>

namespace qf::cuda {

const FlashItem* FlashItems::place(const std::vector<FlashItem>& items, const Allocator& allocator, void* stream) {
  if (items == placed_) return device_.data();
  if (items.size() > device_.size()) {
    constexpr size_t kLeast = 256;  // room for the splits of a longer sequence
    placed_.clear();
    device_ = Buffer<FlashItem>(allocator, std::max(kLeast, 2 * items.size()), stream);
  }
  copy_to_device(device_.data(), items.data(), items.size() * sizeof(FlashItem), stream);
  placed_ = items;
  return device_.data();
}

}  // namespace qf::cuda
