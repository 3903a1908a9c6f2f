#include "engine/cuda/native_forms.h"

#include "engine/cuda/cuda_weight.h"

namespace qf {
namespace {

/// What NativeCall::run asks of its arguments.
bool aligned(const Plan& plan, const GemmArgs& args) {
  const auto fits = [](const void* pointer, int64_t row) {
    return reinterpret_cast<uintptr_t>(pointer) % 16 == 0 && row % 8 == 0;
  };
  return plan.epilogue.output != Format::fp32 && fits(args.activations, args.lda) && fits(args.out, args.ldo);
}

/// The same call for its own rows alone.
GemmArgs own_rows(const GemmArgs& args, int64_t rows) {
  GemmArgs out = args;
  out.activations = static_cast<const uint16_t*>(args.activations) + args.first_row * args.lda;
  out.first_row = 0;
  out.row_count = rows;
  return out;
}

}  // namespace

std::optional<Plan> plan_of_rows(const Plan& plan, int64_t rows) {
  if (rows == plan.m) return plan;
  if (rows == 0 || plan.regions.size() != 1 || plan.trees[0].racing) return std::nullopt;
  Plan part = plan;
  part.m = part.regions[0].row_end = rows;
  return part;
}

void* ZeroedMemory::at_least(size_t bytes, const CudaMachine& machine) {
  if (bytes == 0) return nullptr;
  if (buffers_.empty() || buffers_.back().size() < bytes) {
    const std::vector<char> zeros(bytes, 0);
    buffers_.push_back(cuda::upload(machine.memory, zeros.data(), bytes, machine.stream));
  }
  return buffers_.back().data();
}

const char* NativeForms::run(const Plan& plan, const GemmArgs& args, const Races& races) {
  const int64_t rows = args.row_count < 0 ? plan.m - args.first_row : args.row_count;
  const Service& serves = service(plan, rows);
  if (serves.call == nullptr) return nullptr;
  const GemmArgs own = own_rows(args, rows);
  if (!aligned(plan, own)) return nullptr;
  const cuda::NativeScratch scratch = serves.call->scratch();
  const cuda::Buffer<char> free(machine_.memory, scratch.free, machine_.stream);
  void* const zeroed = machine_.zeroed.at_least(scratch.zeroed, machine_);
  serves.call->run(*serves.weight, own, {machine_.stream, zeroed, free.data(), races.deterministic, races.seed});
  return serves.kernel->name;
}

NativeForms::Service& NativeForms::service(const Plan& plan, int64_t rows) {
  const std::pair key(plan.m, rows);
  auto found = services_.find(key);
  if (found == services_.end()) {
    Service made;
    if (const std::optional<Plan> part = plan_of_rows(plan, rows)) made = make_service(*part);
    found = services_.emplace(key, std::move(made)).first;
  }
  return found->second;
}

NativeForms::Service NativeForms::make_service(const Plan& plan) {
  const cuda::NativeKernel* kernel = cuda::find_native_kernel(plan, machine_.gpu.compute_capability);
  const cuda::NativeWeight* weight = kernel ? form(*kernel, plan) : nullptr;
  if (weight == nullptr) return {};
  return {kernel, weight, kernel->prepare(plan, machine_.gpu, machine_.memory, machine_.stream)};
}

const cuda::NativeWeight* NativeForms::form(const cuda::NativeKernel& kernel, const Plan& plan) {
  auto found = forms_.find(&kernel);
  if (found == forms_.end()) {
    Form made;
    if (machine_.budget.take(weight_.bytes())) {
      try {
        made.weight = kernel.pack(plan, weight_, machine_.memory, machine_.stream);
      } catch (const Error&) {  // act-order, float offsets, ...: the emulator takes them
        machine_.budget.left += weight_.bytes();
      }
    }
    found = forms_.emplace(&kernel, std::move(made)).first;
  }
  return found->second.weight ? &*found->second.weight : nullptr;
}

}  // namespace qf
