#include "engine/linear.h"

#include "base/integers.h"
#include "kernels/emulate/emulate_gemm.h"
#include "kernels/table.h"

namespace qf {

Linear::Linear(std::string kernel, KernelOptions options, PackedWeight weight, at::Tensor bias)
    : kernel_(std::move(kernel)), options_(options), weight_(std::move(weight)), bias_(std::move(bias)) {
  options_.dense = weight_.is_dense();
  options_.bias = bias_.defined();
  require(!bias_.defined() || (bias_.dim() == 1 && bias_.size(0) == weight_.n), "bias: expected ", weight_.n,
          " values");
}

const Plan& Linear::plan(const Machine& machine, DType dtype, int64_t m) {
  auto found = plans_.find(m);
  if (found == plans_.end()) {
    const Problem problem{m, weight_.n, weight_.k, weight_.group, kernel_format(dtype)};
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
  require(x.dim() == 2 && x.size(1) == weight_.k && x.stride(1) == 1, "linear layer: expected rows of ", weight_.k,
          " values");
  at::Tensor out = new_tensor(dtype, {row_count, weight_.n});
  const GemmArgs args{x.data_ptr(),   x.stride(0), bias_.defined() ? bias_.data_ptr() : nullptr,
                      out.data_ptr(), weight_.n,   first_row,
                      row_count};
  const ExecutorContext context{machine.isa, machine.pool, sequence_number(machine.seed, call), machine.deterministic};
  emulate_gemm(plan(machine, dtype, m), weight_, args, context);
  return out;
}

}  // namespace qf
