#include "kernels/native/pieces_gemm.cuh"

namespace qf::cuda {

void prepare_pieces_fp16(const PiecesShape& shape, int shared_bytes) { prepare_pieces<Fp16>(shape, shared_bytes); }
void launch_pieces_fp16(const PiecesLaunch& launch) { launch_pieces<Fp16>(launch); }

}  // namespace qf::cuda
