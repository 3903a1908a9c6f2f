// gptq above 50 rows, native, on Hopper: sums are fp16 numbers, rounded after every 16 k; parts of K are added in fp16,
// ascending. The kernel of pieces with the unit's fp16 accumulators; codes become numbers inside it.
#include "kernels/native/pieces_call.h"
#include "kernels/native/pieces_layout.h"

namespace qf::cuda {

std::string refuse_hgemm(const Plan& plan, int compute_capability) {
  if (compute_capability != 90) return "needs compute capability 9.0";
  if (plan.unit.rounding != Rounding::fp16_nearest_even) return "takes fp16 sums";
  const std::string unit = refuse_unit(plan, compute_capability);
  return unit.empty() ? refuse_pieces(plan, Narrow::fp16) : unit;
}

NativeWeight pack_hgemm(const Plan& plan, const DeviceWeight& weight, const Allocator& allocator, void* stream) {
  return pack_pieces(plan, weight, allocator, stream);
}

std::unique_ptr<NativeCall> prepare_hgemm(const Plan& plan, const Gpu& gpu, const Allocator& allocator, void* stream) {
  return prepare_pieces_call(plan, Narrow::fp16, gpu, allocator, stream);
}

}  // namespace qf::cuda
