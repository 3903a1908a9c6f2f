#include "operators/cache_rows.h"

#include <cstring>

namespace qf {

void store_cache_rows(const CacheRowsArgs& args) {
  const auto bytes = static_cast<size_t>(args.columns * dtype_bytes(args.dtype));
  const auto pitch = static_cast<size_t>(args.stride * dtype_bytes(args.dtype));
  const auto copy = [&](void* to, const void* from, int64_t row) {
    std::memcpy(static_cast<char*>(to) + static_cast<size_t>(args.positions[row]) * bytes,
                static_cast<const char*>(from) + static_cast<size_t>(row) * pitch, bytes);
  };
  for (int64_t row = 0; row < args.rows; ++row) {
    copy(args.to_keys, args.keys, row);
    copy(args.to_values, args.values, row);
  }
}

}  // namespace qf
