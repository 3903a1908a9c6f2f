// The kernel behind both rotary definitions: a block turns the heads of one token in place.
#pragma once

#include "base/cuda/check.h"
#include "operators/cuda/device_context.h"
#include "operators/cuda/fault_note.cuh"
#include "operators/cuda/stored.cuh"
#include "operators/rotary.h"

namespace qf::cuda {

constexpr int kRotaryThreads = 256;

/// Turn: first(x, y, cosine, sine) and second(...). N pairs at once.
template <class Stored, class Turn, int N>
__global__ void __launch_bounds__(kRotaryThreads)
    rotary_rows(RotaryArgs args, bool aligned, unsigned long long* fault) {
  using Word = typename Stored::Word;
  const int64_t token = blockIdx.x, position = args.positions[token];
  if (position < 0 || position >= args.cache_rows) {
    if (threadIdx.x == 0) note_fault(fault, token, position);
    return;
  }
  const int half = static_cast<int>(args.head_size / 2), per_head = half / N;
  const int count = static_cast<int>(args.heads) * per_head;
  const Word* cosines = static_cast<const Word*>(args.cache) + position * args.head_size;
  Word* row = static_cast<Word*>(args.x) + token * args.stride;
  for (int item = static_cast<int>(threadIdx.x); item < count; item += kRotaryThreads) {
    const int head = item / per_head, at = item % per_head * N;
    Word* first = row + int64_t{head} * args.head_size + at;
    float x[N], y[N], cosine[N], sine[N];
    load<Stored>(first, aligned, x);
    load<Stored>(first + half, aligned, y);
    load<Stored>(cosines + at, aligned, cosine);
    load<Stored>(cosines + half + at, aligned, sine);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float turned = Turn::first(x[i], y[i], cosine[i], sine[i]);
      y[i] = Turn::second(x[i], y[i], cosine[i], sine[i]);
      x[i] = turned;
    }
    store<Stored>(first, aligned, x);
    store<Stored>(first + half, aligned, y);
  }
}

template <class Stored, class Turn>
void launch_rotary(const DeviceOperatorContext& context, const RotaryArgs& args, const char* name) {
  if (args.tokens == 0) return;
  constexpr int kVector = 16 / sizeof(typename Stored::Word);
  const int64_t word = sizeof(typename Stored::Word);
  const bool aligned =
      aligned_for(args.x, args.stride * word, 16) && aligned_for(args.cache, args.head_size * word, 16);
  const auto grid = static_cast<unsigned>(args.tokens);
  const auto stream = static_cast<cudaStream_t>(context.stream);
  unsigned long long* fault = context.faults->slot(Fault::position);
  if (args.head_size % (2 * kVector) == 0) {
    rotary_rows<Stored, Turn, kVector><<<grid, kRotaryThreads, 0, stream>>>(args, aligned, fault);
  } else {
    rotary_rows<Stored, Turn, 1><<<grid, kRotaryThreads, 0, stream>>>(args, true, fault);
  }
  check_launch(name);
}

}  // namespace qf::cuda
