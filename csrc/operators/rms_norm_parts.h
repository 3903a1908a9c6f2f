// What vLLM's two RMS-norm kernels have in common.
#pragma once

#include <string>

#include "numerics/cuda_math.h"
#include "operators/context.h"

namespace qf {

/// The launch's thread limit; rows count heads too (they are blocks of the grid).
inline int thread_limit(int64_t rows) { return rows < 256 ? 1024 : 256; }

/// out = (x * s) * weight, rounded once to the storage format.
inline void apply_norm(const SfuView& sfu, float square_total, int64_t columns, float epsilon, const float* weight,
                       float* x) {
  const float variance = square_total / static_cast<float>(columns);
  const float s = cuda_rsqrtf(sfu, variance + epsilon);
  for (int64_t i = 0; i < columns; ++i) x[i] = (x[i] * s) * weight[i];
}

inline void norm_notes(const char* operation, int64_t columns, Notes& notes) {
  if (columns % 8 != 0) notes.push_back(std::string(operation) + ": row length not a multiple of 8 (source only)");
  if (columns > 6144)
    notes.push_back(std::string(operation) + ": row length " + std::to_string(columns) + " (recorded to 6,144)");
}

}  // namespace qf
