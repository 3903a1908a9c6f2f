// Carries out a plan on a GPU: the bits of the CPU emulator, for any plan and any emulated device.
#pragma once

#include "kernels/emulate/cuda/device_plan.h"
#include "kernels/emulate/cuda/device_weight.h"
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

/// args hold device pointers.
void emulate_gemm(const DevicePlan& plan, const DeviceWeight& weight, const GemmArgs& args,
                  const DeviceContext& context);
/// The same by a named scheme: for tests and benchmarks.
void emulate_gemm(const DevicePlan& plan, const DeviceWeight& weight, const GemmArgs& args,
                  const DeviceContext& context, Scheme scheme);

}  // namespace qf::cuda
