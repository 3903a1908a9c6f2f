// _core: everything that needs no torch. One bind_* function per topic, each in core_<topic>.cpp.
#include <pybind11/pybind11.h>

#include "base/error.h"
#include "bindings/core_topics.h"

PYBIND11_MODULE(_core, m) {
  m.doc() = "qforensics core: numerics, kernels, operators, forensics (no torch)";
  pybind11::register_exception<qf::Error>(m, "CoreError", PyExc_ValueError);
#define QF_TOPIC(name) qf::bindings::bind_##name(m);
#include "bindings/core_topics.def"
#undef QF_TOPIC
}
