// Carries out a plan on a GPU: the bits of the CPU emulator, for any plan and any emulated device.
#pragma once

#include "kernels/emulate/cuda/device_plan.h"
#include "kernels/emulate/cuda/device_weight.h"
#include "kernels/emulate/cuda/expand.h"
#include "kernels/gemm.h"
#include "numerics/cuda/scheme.h"

namespace qf::cuda {

/// How to run. `scheme` nothing: the fastest that serves the plan's unit on this GPU.
struct DeviceContext {
  const Allocator* allocator;
  void* stream;
  OwnUnit own;
  uint64_t seed;
  bool deterministic;
};

/// Bytes of partial sums that a pass may use.
constexpr size_t kWorkspace = size_t{1} << 30;

/// The plan as this executor wants it; made once per plan.
DevicePlan make_device_plan(const Plan& plan, const Allocator& allocator, void* stream, size_t workspace = kWorkspace);

/// The scheme that a plan's steps take on this GPU; definition for plans without a matrix unit.
Scheme plan_scheme(const Plan& plan, OwnUnit own);

/// What a weight's plain numbers depend on besides the weight.
struct ExpansionKey {
  WeightRule rule;
  Format format;    // of the numbers
  int lowest;       // their smallest normal exponent
  bool file_order;  // of a weight that has another one
  bool scalar, exponents;

  bool operator==(const ExpansionKey&) const = default;
};

ExpansionKey expansion_key(const Plan& plan, const DeviceWeight& weight, Scheme scheme);
/// Device memory of that form.
size_t expanded_bytes(const ExpansionKey& key, const DeviceWeight& weight);

/// A weight as the plain numbers that a plan's steps take. Kept, it serves every plan of the same key.
struct ExpandedWeight {
  UnitOperand unit;
  ScalarOperand scalar;
};

ExpandedWeight expand(const Plan& plan, const DeviceWeight& weight, Scheme scheme, const Allocator& allocator,
                      void* stream);

/// args hold device pointers.
void emulate_gemm(const DevicePlan& plan, const DeviceWeight& weight, const GemmArgs& args,
                  const DeviceContext& context);
/// The same by a named scheme: for tests and benchmarks.
void emulate_gemm(const DevicePlan& plan, const DeviceWeight& weight, const GemmArgs& args,
                  const DeviceContext& context, Scheme scheme);
/// The same of a weight that was expanded before, for this plan and scheme or for ones of the same key.
void emulate_gemm(const DevicePlan& plan, const DeviceWeight& weight, const ExpandedWeight& expanded,
                  const GemmArgs& args, const DeviceContext& context, Scheme scheme);

}  // namespace qf::cuda
