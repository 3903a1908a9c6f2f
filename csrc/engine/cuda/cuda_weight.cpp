#include "engine/cuda/cuda_weight.h"

namespace qf {
namespace {

constexpr size_t kWorkspace = size_t{256} << 20;  // bytes of partial sums at once

}  // namespace

CudaWeight::CudaWeight(CudaMachine& machine, const PackedWeight& weight, bool native)
    : machine_(machine), weight_(cuda::upload_weight(weight, machine.memory, machine.stream)) {
  if (native) native_.emplace(machine_, weight_);
}

void CudaWeight::multiply(const Plan& plan, const GemmArgs& args, const Races& races) {
  if (const char* kernel = native_ ? native_->run(plan, args, races) : nullptr) {
    ran_[plan.m].insert(std::string("kernel ") + kernel);
    return;
  }
  const cuda::Scheme scheme = cuda::plan_scheme(plan, machine_.own);
  ran_[plan.m].insert(cuda::scheme_name(scheme));
  emulate(plan, scheme, args, races);
}

void CudaWeight::emulate(const Plan& plan, cuda::Scheme scheme, const GemmArgs& args, const Races& races) {
  const cuda::DeviceContext context{&machine_.memory, machine_.stream, machine_.own, races.seed, races.deterministic};
  const cuda::DevicePlan& on_device = device_plan(plan);
  if (const cuda::ExpandedWeight* numbers = kept(plan, scheme)) {
    cuda::emulate_gemm(on_device, weight_, *numbers, args, context, scheme);
  } else {
    cuda::emulate_gemm(on_device, weight_, args, context, scheme);
  }
}

void CudaWeight::copy_rows(const int64_t* ids, int64_t count, Format format, void* out) const {
  cuda::copy_rows(weight_, ids, count, format, out, machine_.stream);
}

const cuda::DevicePlan& CudaWeight::device_plan(const Plan& plan) {
  auto found = plans_.find(plan.m);
  if (found == plans_.end()) {
    cuda::DevicePlan made = cuda::make_device_plan(plan, machine_.memory, machine_.stream, kWorkspace);
    found = plans_.emplace(plan.m, std::move(made)).first;
  }
  return found->second;
}

const cuda::ExpandedWeight* CudaWeight::kept(const Plan& plan, cuda::Scheme scheme) {
  const cuda::ExpansionKey key = cuda::expansion_key(plan, weight_, scheme);
  for (const auto& [known, numbers] : kept_) {
    if (known == key) return &numbers;
  }
  if (!machine_.budget.take(cuda::expanded_bytes(key, weight_))) return nullptr;
  kept_.emplace_back(key, cuda::expand(plan, weight_, scheme, machine_.memory, machine_.stream));
  return &kept_.back().second;
}

}  // namespace qf
