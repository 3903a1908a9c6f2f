#include "operators/attention.h"

#include "base/error.h"

namespace qf {

void check_attention(const AttentionArgs& args) {
  require(args.sequence_count > 0, "attention without a sequence");
  require(args.kv_heads > 0 && args.heads > 0 && args.heads % args.kv_heads == 0, "attention: ", args.heads,
          " heads are no multiple of ", args.kv_heads, " key-value heads");
  require(args.head_size == 64 || args.head_size == 128, "attention: head size ", args.head_size, "; one of: 64, 128");
  require(args.sm_count > 0, "attention: SM count ", args.sm_count);
  for (int64_t i = 0; i < args.sequence_count; ++i) {
    const AttentionSequence& sequence = args.sequences[i];
    require(sequence.queries > 0 && sequence.keys >= sequence.queries, "attention: sequence ", i, " has ",
            sequence.queries, " queries and ", sequence.keys, " keys");
  }
}

}  // namespace qf
