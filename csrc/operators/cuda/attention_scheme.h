// How attention takes the steps of an emulated matrix unit on a GPU.
#pragma once

#include "numerics/cuda/scheme.h"

namespace qf::cuda {

Scheme attention_scheme(const MatrixUnit& unit, OwnUnit own);

}  // namespace qf::cuda
