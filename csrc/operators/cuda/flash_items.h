// Items of flash attention's work on the device. All layers of a step have the same ones, so they are uploaded once; a
// step that is recorded finds them in the same place every time.
#pragma once

#include <vector>

#include "base/cuda/buffer.h"
#include "operators/cuda/flash_job.h"

namespace qf::cuda {

class FlashItems {
 public:
  /// The items on the device; they are uploaded where the last call had others.
  const FlashItem* place(const std::vector<FlashItem>& items, const Allocator& allocator, void* stream);

 private:
  std::vector<FlashItem> placed_;
  Buffer<FlashItem> device_;
};

/// Of sequences with few rows, and with many.
struct FlashTables {
  FlashItems few, many;
};

}  // namespace qf::cuda
