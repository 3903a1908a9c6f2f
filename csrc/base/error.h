// The one exception of the host code. Bindings turn it into Python's ValueError.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace qf {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Throws Error with the parts joined, when `ok` is false.
template <class... Parts>
void require(bool ok, const Parts&... parts) {
  if (ok) return;
  std::ostringstream text;
  (text << ... << parts);
  throw Error(text.str());
}

}  // namespace qf
