// A weight's native kernels (kernels/native): which of them serve its plans, and its packed forms, one per kernel.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/cuda/gpu.h"
#include "engine/backend.h"
#include "kernels/native/native_kernels.h"

namespace qf {

struct CudaMachine;

/// Memory that is all zero between native calls. It never moves: recorded calls keep their pointers.
class ZeroedMemory {
 public:
  void* at_least(size_t bytes, const CudaMachine& machine);

 private:
  std::deque<cuda::Buffer<char>> buffers_;  // the last one is the largest
};

class NativeForms {
 public:
  /// The machine and the weight outlive it.
  NativeForms(CudaMachine& machine, const cuda::DeviceWeight& weight) : machine_(machine), weight_(weight) {}

  /// Runs the call natively and returns the kernel's name; null, with nothing done, where no kernel serves it or where
  /// memory does not last for the kernel's form of the weight.
  const char* run(const Plan& plan, const GemmArgs& args, const Races& races);

 private:
  struct Form {
    std::optional<cuda::NativeWeight> weight;  // nothing: the kernel does not take it
  };
  struct Service {
    const cuda::NativeKernel* kernel = nullptr;
    const cuda::NativeWeight* weight = nullptr;
    std::unique_ptr<cuda::NativeCall> call;  // null: no kernel serves these rows of such calls
  };
  Service& service(const Plan& plan, int64_t rows);
  Service make_service(const Plan& plan);
  const cuda::NativeWeight* form(const cuda::NativeKernel& kernel, const Plan& plan);

  CudaMachine& machine_;
  const cuda::DeviceWeight& weight_;
  std::map<const cuda::NativeKernel*, Form> forms_;
  std::map<std::pair<int64_t, int64_t>, Service> services_;  // by the call's rows and those that are computed
};

/// The plan of the first `rows` rows of a plan's call, if each row's sums are the same wherever it stands.
std::optional<Plan> plan_of_rows(const Plan& plan, int64_t rows);

}  // namespace qf
