// vLLM 0.21's cache: waits for the CUDA functions of numerics.
#include "base/error.h"
#include "operators/rotary_cache.h"

namespace qf {

void rotary_cache_vllm(const OperatorContext& /*context*/, const RotaryCacheArgs& /*args*/) { throw Error("not built yet"); }
void rotary_cache_vllm_notes(const RotaryCacheArgs& /*args*/, Notes& /*notes*/) {}

}  // namespace qf
