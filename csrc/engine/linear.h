// A linear layer: the only place where a tensor becomes GemmArgs.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "engine/machine.h"

namespace qf {

class Linear {
 public:
  /// kernel: a name of kernels.def. bias: [n] in the activations' dtype, on the backend, or an undefined tensor.
  Linear(Backend& backend, std::string kernel, KernelOptions options, PackedWeight weight, at::Tensor bias);

  /// x: [m, k], rows contiguous; returns [m, n] of x's dtype. `call` numbers the call: with the machine's seed it draws
  /// the order of racing sums.
  at::Tensor run(const Machine& machine, DType dtype, const at::Tensor& x, uint64_t call);
  /// Rows [first_row, first_row + row_count) of that result, with its bits.
  at::Tensor run_rows(const Machine& machine, DType dtype, const at::Tensor& x, uint64_t call, int64_t first_row,
                      int64_t row_count);

  /// The plan for m rows (made once per m).
  const Plan& plan(const Machine& machine, DType dtype, int64_t m);
  /// Plans made so far, by number of rows.
  const std::map<int64_t, Plan>& plans() const { return plans_; }
  const std::string& kernel() const { return kernel_; }
  const Weight& weight() const { return *weight_; }
  int64_t n() const { return n_; }
  int64_t k() const { return k_; }
  bool is_dense() const { return options_.dense; }
  /// Whether the weight's rows stand in another order than the activations' columns.
  bool reordered() const { return reordered_; }

 private:
  std::string kernel_;
  KernelOptions options_;
  int64_t n_, k_, group_;
  bool reordered_;
  std::unique_ptr<Weight> weight_;
  at::Tensor bias_;
  std::map<int64_t, Plan> plans_;
};

}  // namespace qf
