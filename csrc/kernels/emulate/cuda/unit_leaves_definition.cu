#include "kernels/emulate/cuda/unit_leaf_kernel.cuh"

namespace qf::cuda {

void launch_definition_leaves(const UnitLeaves& call) {
  if (call.bf16) return launch_scheme<Definition<Bf16>>(call);
  launch_scheme<Definition<Fp16>>(call);
}

}  // namespace qf::cuda
