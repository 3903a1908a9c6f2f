// Checked views of NumPy arrays: the only place where Python's arrays meet raw pointers.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "base/error.h"

namespace qf::bindings {

namespace py = pybind11;

/// C-contiguous array of exactly T (no conversion: a wrong dtype is refused by pybind11 with the signature).
template <class T>
using Array = py::array_t<T, py::array::c_style>;

inline std::string shape_text(const py::array& array) {
  std::string text = "[";
  for (py::ssize_t i = 0; i < array.ndim(); ++i) text.append(i ? ", " : "").append(std::to_string(array.shape(i)));
  return text + "]";
}

/// Throws Error unless the array has exactly this shape; -1 accepts any length.
inline void require_shape(const py::array& array, const std::vector<py::ssize_t>& shape, const char* name) {
  bool ok = array.ndim() == static_cast<py::ssize_t>(shape.size());
  std::string wanted = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (ok && shape[i] >= 0 && array.shape(static_cast<py::ssize_t>(i)) != shape[i]) ok = false;
    wanted += (i ? ", " : "") + (shape[i] < 0 ? std::string("any") : std::to_string(shape[i]));
  }
  require(ok, name, ": expected shape ", wanted, "], found ", shape_text(array));
}

}  // namespace qf::bindings
