#include "bindings/arrays.h"
#include "bindings/core_topics.h"
#include "numerics/isa.h"

namespace qf::bindings {

void bind_environment(py::module_& m) {
  m.def("best_isa", [] { return std::string(isa_name(detect_isa())); }, "Best instruction set of this machine.");
  m.def(
      "check_isa", [](const std::string& name) { return std::string(isa_name(parse_isa(name))); }, py::arg("name"),
      "The name back, or CoreError when it is unknown or not available here.");
  py::dict build;
  build["compiler"] = "g++ " __VERSION__;
  m.attr("build_info") = build;
}

}  // namespace qf::bindings
