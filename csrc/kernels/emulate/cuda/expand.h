// Operands of an emulated GEMM as plain arrays: every weight and activation as the number that enters the arithmetic.
#pragma once

#include "kernels/emulate/cuda/device_weight.h"
#include "kernels/gemm.h"

namespace qf::cuda {

/// For matrix units: bits and exponents, [rows][ld], ld a multiple of 32, padded with zeros. Exponents as
/// pinned_step.cuh wants them: plain for weights (rows = columns of the output), biased by 127 for activations.
struct UnitOperand {
  Buffer<uint16_t> value;
  Buffer<int16_t> exponent;
  int64_t rows = 0, ld = 0;
};

/// For scalar chains: fp32, weights [k][ld] and activations [m][ld]; scales of int8 activations [m][k / group].
struct ScalarOperand {
  Buffer<float> value, scale;
  int64_t rows = 0, ld = 0;
};

/// exponents: whether they are made too (the native scheme does not read them).
UnitOperand expand_weight(const Plan& plan, const DeviceWeight& weight, bool exponents, const Allocator& allocator,
                          void* stream);
/// Of activations: the rows that args name.
UnitOperand expand_activations(const Plan& plan, const DeviceWeight& weight, const GemmArgs& args,
                               const Allocator& allocator, void* stream);
ScalarOperand expand_weight_fp32(const Plan& plan, const DeviceWeight& weight, const Allocator& allocator,
                                 void* stream);
ScalarOperand expand_activations_fp32(const Plan& plan, const DeviceWeight& weight, const GemmArgs& args,
                                      const Allocator& allocator, void* stream);

}  // namespace qf::cuda
