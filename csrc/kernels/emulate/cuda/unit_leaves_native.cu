#include "kernels/emulate/cuda/unit_leaf_kernel.cuh"

namespace qf::cuda {

void launch_native_leaves(const UnitLeaves& call) {
  if (call.bf16) return launch_scheme<Native<Bf16, float>>(call);
  if (call.half_output) return launch_scheme<Native<Fp16, Fp16>>(call);
  launch_scheme<Native<Fp16, float>>(call);
}

}  // namespace qf::cuda
