#include "operators/rotary.h"

#include "base/error.h"

namespace qf {

void check_positions(const RotaryArgs& args) {
  for (int64_t token = 0; token < args.tokens; ++token) {
    require(args.positions[token] >= 0 && args.positions[token] < args.cache_rows, "position ", args.positions[token],
            " of token ", token, " is outside the rotary cache of ", args.cache_rows, " rows");
  }
}

}  // namespace qf
