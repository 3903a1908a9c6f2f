// The CPU: tensors in memory, plans and operators on threads.
#pragma once

#include "engine/backend.h"

namespace qf {

class CpuBackend final : public Backend {
 public:
  CpuBackend(OperatorSet operators, Isa isa, int threads);

  at::Device device() const override { return at::kCPU; }
  std::unique_ptr<Weight> take(PackedWeight weight) override;
  void set_special(const SfuView& special) override { special_ = special; }

#define QF_OPERATOR(name, Args) \
  void run(const Args& args) override { operators_.name(context(), args); }
#define QF_DEFINITION(...)
#include "operators/operators.def"
#undef QF_DEFINITION
#undef QF_OPERATOR

  void store(const CacheRowsArgs& args) override { store_cache_rows(args); }
  void write(const at::Tensor& to, const void* host) override;
  LogprobAnswer logprobs(const at::Tensor& logits, const LogprobQuery& query) override;
  int64_t logits_rows(int64_t row_bytes) const override;
  std::unique_ptr<KeyValuePanels> new_panels(int64_t kv_heads, int64_t head_size) const override;

 private:
  OperatorContext context() const { return {isa_, pool_.get(), &special_}; }

  OperatorSet operators_;
  Isa isa_;
  std::unique_ptr<ThreadPool> pool_;
  SfuView special_{};
};

}  // namespace qf
