#include "kernels/native/pieces_gemm.cuh"

namespace qf::cuda {

void prepare_pieces_fp16_sums(const PiecesShape& shape, int shared_bytes) {
  prepare_pieces<Fp16Sums>(shape, shared_bytes);
}
void launch_pieces_fp16_sums(const PiecesLaunch& launch) { launch_pieces<Fp16Sums>(launch); }

}  // namespace qf::cuda
