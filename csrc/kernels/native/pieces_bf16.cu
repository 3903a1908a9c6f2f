#include "kernels/native/pieces_gemm.cuh"

namespace qf::cuda {

void prepare_pieces_bf16(const PiecesShape& shape, int shared_bytes) { prepare_pieces<Bf16>(shape, shared_bytes); }
void launch_pieces_bf16(const PiecesLaunch& launch) { launch_pieces<Bf16>(launch); }

}  // namespace qf::cuda
