#include "operators/cuda/faults.h"

#include "base/cuda/check.h"
#include "base/error.h"

namespace qf::cuda {
namespace {

constexpr unsigned long long kNone = ~0ull;

struct Noted {
  int64_t row, value;
};

Noted noted(unsigned long long packed) {
  return {static_cast<int64_t>(packed >> 32), static_cast<int32_t>(static_cast<uint32_t>(packed))};
}

}  // namespace

Faults::Faults(const Allocator& allocator, void* stream) : slots_(allocator, kFaults, stream), stream_(stream) {
  clear();
}

void Faults::clear() {
  cuda::check(cudaMemsetAsync(slots_.data(), 0xFF, slots_.bytes(), static_cast<cudaStream_t>(stream_)), "clear faults");
}

void Faults::check() {
  unsigned long long found[kFaults];
  copy_to_host(found, slots_.data(), sizeof found, stream_);
  if (found[0] == kNone && found[1] == kNone) return;
  clear();
  const Noted id = noted(found[static_cast<int>(Fault::token_id)]);
  require(found[0] == kNone, "token id ", id.value, " at position ", id.row, " is outside the vocabulary");
  const Noted position = noted(found[static_cast<int>(Fault::position)]);
  throw Error("position " + std::to_string(position.value) + " of token " + std::to_string(position.row) +
              " is outside the rotary cache");
}

}  // namespace qf::cuda
