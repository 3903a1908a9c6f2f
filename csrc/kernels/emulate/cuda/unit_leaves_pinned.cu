#include "kernels/emulate/cuda/unit_leaf_kernel.cuh"

namespace qf::cuda {
namespace {

template <int kProducts>
void launch(const UnitLeaves& call) {
  if (call.bf16) return launch_scheme<Pinned<Bf16, float, kProducts>>(call);
  if (call.half_output) return launch_scheme<Pinned<Fp16, Fp16, kProducts>>(call);
  launch_scheme<Pinned<Fp16, float, kProducts>>(call);
}

}  // namespace

void launch_pinned_leaves(const UnitLeaves& call) {
  require(call.args.unit.products == 8 || call.args.unit.products == 4, "no pinned scheme for ",
          call.args.unit.products, " products");
  if (call.args.unit.products == 8) return launch<8>(call);
  launch<4>(call);
}

}  // namespace qf::cuda
