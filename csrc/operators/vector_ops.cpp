#include "operators/vector_ops.h"

#include "operators/vector_ops_loops.h"

namespace qf {

const VectorOps& vector_ops(Isa /*isa*/) {
  static const VectorOps ops{widen, narrow, round, max, row_exponents, exp_parts, exp2_scaled, scale_flushed, rotate};
  return ops;
}

}  // namespace qf
