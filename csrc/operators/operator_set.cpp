#include "operators/operator_set.h"

#include <algorithm>

#include "base/error.h"

namespace qf {

template <class Args>
void Definition<Args>::add_unconfirmed(const Args& args, std::set<std::string>& known) const {
  if (notes == nullptr) return;
  Notes fresh;
  notes(args, fresh);
  known.insert(fresh.begin(), fresh.end());
}

#define QF_OPERATOR(name, Args) template struct Definition<Args>;
#define QF_DEFINITION(...)
#include "operators/operators.def"
#undef QF_DEFINITION
#undef QF_OPERATOR

void choose_definition(OperatorSet& set, std::string_view name, std::string_view definition) {
#define QF_OPERATOR(...)
#define QF_DEFINITION(operation, choice, notes, source)     \
  if (name == #operation && definition == #choice) {        \
    set.operation = {#choice, operation##_##choice, notes}; \
    return;                                                 \
  }
#include "operators/operators.def"
#undef QF_DEFINITION
#undef QF_OPERATOR
  throw Error("no definition '" + std::string(definition) + "' of operator '" + std::string(name) + "'");
}

std::vector<std::string> operator_profiles() {
  std::vector<std::string> names;
#define QF_CHOICE(profile, operation, definition, first, last) \
  if (std::find(names.begin(), names.end(), profile) == names.end()) names.emplace_back(profile);
#include "operators/profiles.def"
#undef QF_CHOICE
  return names;
}

OperatorSet operator_set(std::string_view profile, int compute_major) {
  std::string known;
  for (const std::string& name : operator_profiles()) known += (known.empty() ? "" : ", ") + name;
  OperatorSet set;
  set.profile = profile;
  bool found = false;
#define QF_CHOICE(name, operation, definition, first, last)                 \
  if (profile == name && compute_major >= first && compute_major <= last) { \
    choose_definition(set, #operation, #definition);                        \
    found = true;                                                           \
  }
#include "operators/profiles.def"
#undef QF_CHOICE
  require(found, "unknown engine profile '", profile, "'; one of: ", known);
#define QF_OPERATOR(name, Args)                                                                          \
  require(set.name.run != nullptr, "profile '", profile, "' has no ", #name, " for compute capability ", \
          compute_major, ".x");
#define QF_DEFINITION(...)
#include "operators/operators.def"
#undef QF_DEFINITION
#undef QF_OPERATOR
  return set;
}

std::vector<DefinitionInfo> operator_definitions() {
  return {
#define QF_OPERATOR(...)
#define QF_DEFINITION(operation, choice, notes, source) {#operation, #choice, source},
#include "operators/operators.def"
#undef QF_DEFINITION
#undef QF_OPERATOR
  };
}

}  // namespace qf
