#include "engine/linear.h"

#include "base/integers.h"
#include "kernels/table.h"

namespace qf {

Linear::Linear(Backend& backend, std::string kernel, KernelOptions options, PackedWeight weight, at::Tensor bias)
    : kernel_(std::move(kernel)),
      options_(options),
      n_(weight.n),
      k_(weight.k),
      group_(weight.group),
      reordered_(!weight.order.empty()),
      bias_(std::move(bias)) {
  options_.dense = weight.is_dense();
  options_.bias = bias_.defined();
  require(!bias_.defined() || (bias_.dim() == 1 && bias_.size(0) == n_), "bias: expected ", n_, " values");
  weight_ = backend.take(std::move(weight));
}

const Plan& Linear::plan(const Machine& machine, DType dtype, int64_t m) {
  auto found = plans_.find(m);
  if (found == plans_.end()) {
    const Problem problem{m, n_, k_, group_, kernel_format(dtype)};
    found = plans_.emplace(m, make_plan(kernel_, problem, machine.device, options_)).first;
  }
  return found->second;
}

at::Tensor Linear::run(const Machine& machine, DType dtype, const at::Tensor& x, uint64_t call) {
  return run_rows(machine, dtype, x, call, 0, x.size(0));
}

at::Tensor Linear::run_rows(const Machine& machine, DType dtype, const at::Tensor& x, uint64_t call, int64_t first_row,
                            int64_t row_count) {
  const int64_t m = x.size(0);
  require(x.dim() == 2 && x.size(1) == k_ && x.stride(1) == 1, "linear layer: expected rows of ", k_, " values");
  at::Tensor out = machine.backend->new_tensor(dtype, {row_count, n_});
  const GemmArgs args{x.data_ptr(), x.stride(0), bias_.defined() ? bias_.data_ptr() : nullptr, out.data_ptr(), n_,
                      first_row,    row_count};
  weight_->multiply(plan(machine, dtype, m), args, {sequence_number(machine.seed, call), machine.deterministic});
  return out;
}

}  // namespace qf
