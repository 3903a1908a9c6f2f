#include "operators/cuda/flash_kernel.cuh"
#include "operators/cuda/flash_kernels.h"

namespace qf::cuda {

void run_flash_bf16(const FlashJob& job, Scheme scheme, int head_size, bool few_rows, int64_t items, void* stream) {
  switch (scheme) {
    case Scheme::native: return launch_flash<Native<Bf16, float>, Bf16>(job, head_size, few_rows, items, stream);
    case Scheme::pinned:
      if (job.unit.products == 8) {
        return launch_flash<Pinned<Bf16, float, 8>, Bf16>(job, head_size, few_rows, items, stream);
      }
      return launch_flash<Pinned<Bf16, float, 4>, Bf16>(job, head_size, few_rows, items, stream);
    case Scheme::definition: return launch_flash<Definition<Bf16>, Bf16>(job, head_size, few_rows, items, stream);
  }
}

}  // namespace qf::cuda
