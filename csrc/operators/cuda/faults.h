// Ids and positions that lie outside their tables, found while kernels run. A kernel writes zeros for such a row and
// notes the first one; whoever waits for the stream anyway asks here, so that no call has to wait for its own check.
#pragma once

#include <cstdint>

#include "base/cuda/buffer.h"

namespace qf::cuda {

enum class Fault : int { token_id, position };
inline constexpr int kFaults = 2;

class Faults {
 public:
  Faults(const Allocator& allocator, void* stream);

  /// Device memory for kernels: the first fault of this kind as (row << 32 | value cut to 32 bits), or all ones.
  unsigned long long* slot(Fault fault) const { return slots_.data() + static_cast<int>(fault); }
  /// Waits for the stream; throws Error that names the first row of a fault, once.
  void check();

 private:
  void clear();
  Buffer<unsigned long long> slots_;
  void* stream_;
};

}  // namespace qf::cuda
