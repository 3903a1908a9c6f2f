// The device forms of an operator set: what an engine on a GPU calls.
#pragma once

#include "operators/cuda/device_operators.h"

namespace qf::cuda {

template <class Args>
struct DeviceDefinition {
  std::string_view name;
  void (*run)(const DeviceOperatorContext& context, const Args& args) = nullptr;

  void operator()(const DeviceOperatorContext& context, const Args& args) const { run(context, args); }
};

/// Notes of a call stay with the OperatorSet: they are the same.
struct DeviceOperatorSet {
#define QF_OPERATOR(name, Args) DeviceDefinition<Args> name;
#define QF_DEFINITION(...)
#include "operators/operators.def"
#undef QF_DEFINITION
#undef QF_OPERATOR
};

/// The same definitions, on a device.
DeviceOperatorSet device_operator_set(const OperatorSet& set);

}  // namespace qf::cuda
