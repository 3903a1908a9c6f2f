// Does this GPU compute what its profile says? Random steps through a scheme and through the definition, compared by
// bits.
#pragma once

#include <cstdint>

#include "base/cuda/buffer.h"
#include "numerics/cuda/scheme.h"

namespace qf::cuda {

enum class StepInputs : uint8_t {
  plain,       // sums of uniforms, one magnitude
  wide,        // the same, exponents spread over 24 binades
  any_finite,  // random bits without Inf and NaN
  cancelling,  // products in pairs of opposite sign, nearly equal
  sparse,      // zeros and subnormals
  special,     // any_finite with a few Inf and NaN
};
constexpr int kStepInputs = 6;

struct StepTest {
  MatrixUnit unit;  // input_exponent -14: fp16; -126: bf16
  Scheme scheme;
  StepInputs inputs;
  uint64_t seed;
  int64_t outputs;  // at least so many: whole tiles of 128 outputs (wgmma: 512), chains of four steps
};

struct StepTestResult {
  int64_t outputs = 0, differing = 0;
  uint32_t expected = 0, found = 0;  // bits of one output that differs
};

/// Throws Error where the scheme has no form for the unit.
StepTestResult run_step_test(const StepTest& test, const Allocator& allocator, void* stream);

/// The same for wgmma (m64n8k16), of compute capability 9.0; the scheme does not matter. Throws Error on other GPUs.
StepTestResult run_wgmma_test(const StepTest& test, const Allocator& allocator, void* stream);

/// A few thousand steps of the GPU's own unit (fp16 and bf16) and of emulated ones; throws Error that names the GPU,
/// the unit and the first difference when one output differs. Takes milliseconds; callers run it once per process and
/// GPU.
void require_faithful_gpu(int index);

}  // namespace qf::cuda
