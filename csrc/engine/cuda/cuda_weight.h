// A weight on a GPU: its packed form, and where memory allows the plain numbers that emulated GEMMs take, and the forms
// of native kernels.
#pragma once

#include <map>
#include <utility>
#include <vector>

#include "engine/backend.h"
#include "engine/cuda/native_forms.h"
#include "kernels/emulate/cuda/emulate_gemm_cuda.h"

namespace qf {

/// Bytes of device memory that weights may still take for further forms of themselves.
struct ExpansionBudget {
  size_t left = 0;

  bool take(size_t bytes) {
    if (bytes > left) return false;
    left -= bytes;
    return true;
  }
};

/// The GPU as its weights see it; `stream` changes with torch's.
struct CudaMachine {
  cuda::Allocator memory;
  void* stream;
  cuda::OwnUnit own;
  cuda::Gpu gpu;
  ExpansionBudget budget;
  ZeroedMemory zeroed;
};

class CudaWeight final : public Weight {
 public:
  /// The machine outlives it. native: by native kernels, where one serves the plan.
  CudaWeight(CudaMachine& machine, const PackedWeight& weight, bool native);

  void multiply(const Plan& plan, const GemmArgs& args, const Races& races) override;
  void copy_rows(const int64_t* ids, int64_t count, Format format, void* out) const override;
  std::map<int64_t, std::set<std::string>> ran() const override { return ran_; }

 private:
  void emulate(const Plan& plan, cuda::Scheme scheme, const GemmArgs& args, const Races& races);
  const cuda::DevicePlan& device_plan(const Plan& plan);
  const cuda::ExpandedWeight* kept(const Plan& plan, cuda::Scheme scheme);

  CudaMachine& machine_;
  cuda::DeviceWeight weight_;
  std::map<int64_t, cuda::DevicePlan> plans_;  // by m
  std::vector<std::pair<cuda::ExpansionKey, cuda::ExpandedWeight>> kept_;
  std::optional<NativeForms> native_;
  std::map<int64_t, std::set<std::string>> ran_;
};

}  // namespace qf
