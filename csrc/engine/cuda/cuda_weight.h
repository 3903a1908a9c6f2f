// A weight on a GPU: its packed form, and where memory allows the plain numbers that GEMMs take.
#pragma once

#include <map>
#include <utility>
#include <vector>

#include "engine/backend.h"
#include "kernels/emulate/cuda/emulate_gemm_cuda.h"

namespace qf {

/// Bytes of device memory that weights may still take for their plain numbers.
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
  ExpansionBudget budget;
};

class CudaWeight final : public Weight {
 public:
  /// The machine outlives it.
  CudaWeight(CudaMachine& machine, const PackedWeight& weight);

  void multiply(const Plan& plan, const GemmArgs& args, const Races& races) override;
  void copy_rows(const int64_t* ids, int64_t count, Format format, void* out) const override;

 private:
  const cuda::DevicePlan& device_plan(const Plan& plan);
  const cuda::ExpandedWeight* kept(const Plan& plan, cuda::Scheme scheme);

  CudaMachine& machine_;
  cuda::DeviceWeight weight_;
  std::map<int64_t, cuda::DevicePlan> plans_;  // by m
  std::vector<std::pair<cuda::ExpansionKey, cuda::ExpandedWeight>> kept_;
};

}  // namespace qf
