#pragma once

#include <pybind11/pybind11.h>

namespace qf::bindings {

#define QF_TOPIC(name) void bind_##name(pybind11::module_& m);
#include "bindings/core_topics.def"
#undef QF_TOPIC

}  // namespace qf::bindings
