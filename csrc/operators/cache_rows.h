// New tokens' keys and values on their way into a cache. Nothing is computed.
#pragma once

#include "operators/context.h"

namespace qf {

struct CacheRowsArgs {
  DType dtype;
  const void* keys;          // [rows], `stride` elements from row to row, `columns` each
  const void* values;        // the same
  const int64_t* positions;  // [rows]: row i goes to row positions[i] of the cache
  void* to_keys;             // [capacity][columns]
  void* to_values;
  int64_t rows;
  int64_t columns;
  int64_t stride;
};

void store_cache_rows(const CacheRowsArgs& args);

}  // namespace qf
