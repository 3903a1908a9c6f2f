#include "operators/context.h"

#include "base/error.h"

namespace qf {

const char* dtype_name(DType dtype) {
  switch (dtype) {
    case DType::fp16: return "fp16";
    case DType::bf16: return "bf16";
    case DType::fp32: return "fp32";
  }
  return "unknown";
}

DType parse_dtype(const std::string& name) {
  for (DType dtype : {DType::fp16, DType::bf16, DType::fp32}) {
    if (name == dtype_name(dtype)) return dtype;
  }
  throw Error("unknown dtype '" + name + "'; one of: fp16, bf16, fp32");
}

}  // namespace qf
