// Native kernels: a plan carried out at the speed of the GPU's own units, with the bits of the emulators.
//
// A native kernel serves the plans of one family. The plan (and nothing else) decides who is added to whom; a kernel
// is free in layout, loads, pipelines and scheduling only. refusal() says which plans it does not serve, so that a
// kernel is never run where its bits would differ: a plan of an A100's order (its SM count) is served on an H200 where
// the plan's matrix unit is the H200's own.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/cuda/buffer.h"
#include "base/cuda/gpu.h"
#include "kernels/emulate/cuda/device_weight.h"
#include "kernels/gemm.h"
#include "numerics/cuda/scheme.h"

namespace qf::cuda {

/// A weight in a native kernel's own layout (described in the kernel's file). It does not depend on M: one weight
/// serves every plan of the kernel for its layer.
struct NativeWeight {
  int64_t n = 0, k = 0, group = 0;
  Buffer<uint32_t> codes;    // eight codes per word
  Buffer<uint32_t> numbers;  // what the groups hold: scales, zero points
  Buffer<int32_t> order;     // act-order, as DeviceWeight::order

  size_t bytes() const { return codes.bytes() + numbers.bytes() + order.bytes(); }
};

/// Device memory of one run, in bytes. `zeroed` is all zero before a run and again after it (counters between blocks);
/// `free` holds anything. Calls that run one after the other on a stream may share both.
struct NativeScratch {
  size_t zeroed = 0, free = 0;
};

/// How to run. The pointers hold at least NativeScratch bytes, aligned to 256.
struct NativeContext {
  void* stream;
  void* zeroed;
  void* free;
  /// Racing plans, as the emulators: the ascending order, or the one drawn by `seed` (kernels/emulate/race_order.h).
  bool deterministic;
  uint64_t seed;
};

/// A plan made ready for one GPU; tables that a kernel needs live in it. run() allocates nothing and does not wait, so
/// that a CUDA graph can capture it. args hold device pointers, rows aligned to 16 bytes.
class NativeCall {
 public:
  virtual ~NativeCall() = default;
  virtual NativeScratch scratch() const = 0;
  virtual void run(const NativeWeight& weight, const GemmArgs& args, const NativeContext& context) const = 0;
};

struct NativeKernel {
  const char* name;
  int least_capability;  // 80: compute capability 8.0
  const char* summary;
  /// Why the kernel does not serve this plan on a GPU of this compute capability; empty: it serves it.
  std::string (*refusal)(const Plan& plan, int compute_capability);
  /// Repacks on the device and waits for it: a weight is constant from here on, and run() may fetch it before what is
  /// queued ahead of it on the stream is done (programmatic dependent launch). Throws Error where the weight has
  /// something that the kernel does not take.
  NativeWeight (*pack)(const Plan& plan, const DeviceWeight& weight, const Allocator& allocator, void* stream);
  std::unique_ptr<NativeCall> (*prepare)(const Plan& plan, const Gpu& gpu, const Allocator& allocator, void* stream);
};

/// All kernels of native.def.
const std::vector<NativeKernel>& native_kernels();
/// The first kernel that serves the plan, or null; `why` (where given) then says what each refused.
const NativeKernel* find_native_kernel(const Plan& plan, int compute_capability, std::string* why = nullptr);
/// The same; throws Error with the reasons.
const NativeKernel& require_native_kernel(const Plan& plan, int compute_capability);

/// What refusals share. Empty where the plan's unit is the GPU's own.
std::string refuse_unit(const Plan& plan, int compute_capability);
/// Empty where both trees are the same: leaves, walks, roundings, adds.
bool same_tree(const Tree& a, const Tree& b);
/// Throws Error unless weight and args fit the plan: sizes, bias, all rows of the call.
void check_native_call(const Plan& plan, const NativeWeight& weight, const GemmArgs& args);

// One file per kernel, native_<name>.cu, defines these.
#define QF_NATIVE(name, least_capability, summary)                                                                  \
  std::string refuse_##name(const Plan& plan, int compute_capability);                                              \
  NativeWeight pack_##name(const Plan& plan, const DeviceWeight& weight, const Allocator& allocator, void* stream); \
  std::unique_ptr<NativeCall> prepare_##name(const Plan& plan, const Gpu& gpu, const Allocator& allocator,          \
                                             void* stream);
#include "kernels/native/native.def"
#undef QF_NATIVE

}  // namespace qf::cuda
