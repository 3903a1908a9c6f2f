// vLLM 0.21's rotary_embedding kernel: cosines and sines in the storage format, one product rounded, the other fused.
#include <vector>

#include "operators/rotary.h"
#include "operators/vector_ops.h"

namespace qf {

void rotary_vllm(const OperatorContext& context, const RotaryArgs& args) {
  const VectorOps& ops = vector_ops(context.isa);
  const int64_t half = args.head_size / 2;
  const size_t length = static_cast<size_t>(args.head_size);
  check_positions(args);
  context.pool->run(args.tokens, [&](int64_t token) {
    std::vector<float> turn(length), head(length), out(length);
    ops.widen(args.dtype, static_cast<const uint16_t*>(args.cache) + args.positions[token] * args.head_size,
              args.head_size, turn.data());
    for (int64_t h = 0; h < args.heads; ++h) {
      uint16_t* x = static_cast<uint16_t*>(args.x) + token * args.stride + h * args.head_size;
      ops.widen(args.dtype, x, args.head_size, head.data());
      ops.rotate(head.data(), head.data() + half, turn.data(), turn.data() + half, half, out.data(), out.data() + half);
      ops.narrow(args.dtype, out.data(), args.head_size, x);
    }
  });
}

void rotary_vllm_notes(const RotaryArgs& args, Notes& notes) {
  if (args.head_size != 64 && args.head_size != 128)
    notes.push_back("rotary: head size " + std::to_string(args.head_size) + " (64 and 128 recorded)");
}

}  // namespace qf
