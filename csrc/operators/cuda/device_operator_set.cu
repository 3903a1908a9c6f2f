#include "operators/cuda/device_operator_set.h"

namespace qf::cuda {

DeviceOperatorSet device_operator_set(const OperatorSet& set) {
  DeviceOperatorSet device;
#define QF_OPERATOR(...)
#define QF_DEFINITION(operation, choice, notes, source) \
  if (set.operation.name == #choice) device.operation = {#choice, operation##_##choice};
#include "operators/operators.def"
#undef QF_DEFINITION
#undef QF_OPERATOR
  return device;
}

}  // namespace qf::cuda
