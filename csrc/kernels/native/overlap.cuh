// The native kernels' launches.
#pragma once

#include "base/cuda/overlap.cuh"
