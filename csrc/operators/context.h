// What every operator gets besides its own arguments: the machine it runs on. None of it changes a result.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "numerics/isa.h"
#include "numerics/special_function_unit.h"

namespace qf {

/// Storage format of activations. Arithmetic between loads and stores is fp32.
enum class DType : uint8_t { fp16, bf16, fp32 };

inline constexpr int64_t dtype_bytes(DType dtype) { return dtype == DType::fp32 ? 4 : 2; }
const char* dtype_name(DType dtype);
/// Inverse of dtype_name; throws Error for an unknown name.
DType parse_dtype(const std::string& name);

struct OperatorContext {
  Isa isa;
  ThreadPool* pool;
  const SfuView* sfu;  // tables of the GPU's special-function unit; unused by the fp32 definitions
};

/// n floats without a value, for one item of work.
inline std::unique_ptr<float[]> scratch(int64_t n) {
  return std::make_unique_for_overwrite<float[]>(static_cast<size_t>(n));
}

/// Sentences about what a definition does that no recording confirms.
using Notes = std::vector<std::string>;

}  // namespace qf
