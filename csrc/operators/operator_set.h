// The operators of an engine profile on a GPU: what an engine calls, and what it may ask of each call.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "operators/attention.h"
#include "operators/context.h"
#include "operators/embedding.h"
#include "operators/log_softmax.h"
#include "operators/rms_norm.h"
#include "operators/rotary.h"
#include "operators/rotary_cache.h"
#include "operators/silu_and_mul.h"
#include "operators/top_k.h"

namespace qf {

template <class Args>
struct Definition {
  using Arguments = Args;
  std::string_view name;
  void (*run)(const OperatorContext& context, const Args& args) = nullptr;
  void (*notes)(const Args& args, Notes& notes) = nullptr;

  void operator()(const OperatorContext& context, const Args& args) const { run(context, args); }
  /// Adds what no recording confirms of this call.
  void add_unconfirmed(const Args& args, std::set<std::string>& known) const;
};

struct OperatorSet {
  std::string profile;
#define QF_OPERATOR(name, Args) Definition<Args> name;
#define QF_DEFINITION(...)
#include "operators/operators.def"
#undef QF_DEFINITION
#undef QF_OPERATOR
};

/// Throws Error for an unknown profile, or a GPU generation that the profile does not cover.
OperatorSet operator_set(std::string_view profile, int compute_major);
std::vector<std::string> operator_profiles();

/// Replaces one operator's definition, by name; throws Error when there is none such.
void choose_definition(OperatorSet& set, std::string_view name, std::string_view definition);

struct DefinitionInfo {
  std::string_view name, definition, source;
};
std::vector<DefinitionInfo> operator_definitions();

}  // namespace qf
