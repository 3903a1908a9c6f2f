// Tensors as the layers below see them: pointers and formats. Shapes are the caller's business.
#pragma once

#include <ATen/ATen.h>

#include "base/error.h"
#include "kernels/plan.h"
#include "operators/context.h"

namespace qf {

inline at::ScalarType scalar_type(DType dtype) {
  switch (dtype) {
    case DType::fp16: return at::kHalf;
    case DType::bf16: return at::kBFloat16;
    case DType::fp32: return at::kFloat;
  }
  throw Error("unknown dtype");
}

inline Format kernel_format(DType dtype) {
  switch (dtype) {
    case DType::fp16: return Format::fp16;
    case DType::bf16: return Format::bf16;
    case DType::fp32: return Format::fp32;
  }
  throw Error("unknown dtype");
}

}  // namespace qf
