// Machete's plans, native, on Hopper: stream-K and split-K pieces of K as the plan cuts them, fp32 sums, added
// ascending. How: pieces_plan.h (who computes what), pieces_layout.h (weights), pieces_gemm.cuh (the walk),
// pieces_combine.cuh.
#include "kernels/native/pieces_call.h"
#include "kernels/native/pieces_layout.h"

namespace qf::cuda {

std::string refuse_machete(const Plan& plan, int compute_capability) {
  if (compute_capability != 90) return "needs compute capability 9.0";
  if (plan.kernel != "machete") return "takes machete's plans";
  if (plan.unit.rounding != Rounding::fp32_toward_zero) return "takes fp32 sums";
  const std::string unit = refuse_unit(plan, compute_capability);
  return unit.empty() ? refuse_pieces(plan, Narrow::none) : unit;
}

NativeWeight pack_machete(const Plan& plan, const DeviceWeight& weight, const Allocator& allocator, void* stream) {
  return pack_pieces(plan, weight, allocator, stream);
}

std::unique_ptr<NativeCall> prepare_machete(const Plan& plan, const Gpu& gpu, const Allocator& allocator,
                                            void* stream) {
  return prepare_pieces_call(plan, Narrow::none, gpu, allocator, stream);
}

}  // namespace qf::cuda
