// The definitions of operators.def on a device, by the same names: void <operator>_<definition>(context, args), one .cu
// file each. Args are the CPU's structs with device pointers (attention's array of sequences is read on the host, their
// panels are not used); every call only queues work on the context's stream. The bits are the CPU definitions'.
#pragma once

#include "operators/cuda/device_context.h"
#include "operators/operator_set.h"

namespace qf::cuda {

#define QF_OPERATOR(...)
#define QF_DEFINITION(operation, choice, notes, source)           \
  void operation##_##choice(const DeviceOperatorContext& context, \
                            const decltype(OperatorSet::operation)::Arguments& args);
#include "operators/operators.def"
#undef QF_DEFINITION
#undef QF_OPERATOR

}  // namespace qf::cuda
