// NumPy arrays of one GEMM call, checked against its plan.
#pragma once

#include <optional>

#include "bindings/arrays.h"
#include "kernels/plan.h"

namespace qf::bindings {

/// Element type checks happen here, because the plan decides them: uint16 bits of fp16 or bf16, or float32.
inline void require_bits(const py::array& array, Format format, const char* name) {
  const bool ok =
      format == Format::fp32 ? py::isinstance<py::array_t<float>>(array) : py::isinstance<py::array_t<uint16_t>>(array);
  require(ok && (array.flags() & py::array::c_style), name, ": expected C-contiguous ",
          format == Format::fp32 ? "float32" : "uint16 bits", " for ", format_name(format));
}

inline void check_gemm_arrays(const Plan& plan, const py::array& activations, const std::optional<py::array>& bias) {
  require_bits(activations, plan.activations, "activations");
  require_shape(activations, {plan.m, plan.k}, "activations");
  if (!bias) return;
  require_bits(*bias, plan.epilogue.output, "bias");
  require_shape(*bias, {plan.n}, "bias");
}

inline py::array new_output(const Plan& plan, int64_t rows) {
  const std::vector<py::ssize_t> shape = {rows, plan.n};
  return plan.epilogue.output == Format::fp32 ? py::array(py::array_t<float>(shape))
                                              : py::array(py::array_t<uint16_t>(shape));
}

}  // namespace qf::bindings
