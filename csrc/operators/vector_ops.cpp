#include "operators/vector_ops.h"

#include "operators/vector_ops_loops.h"

namespace qf {

const VectorOps kVectorOpsPortable = QF_VECTOR_OPS;

const VectorOps& vector_ops(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::avx512) return kVectorOpsAvx512;
  if (isa == Isa::avx2) return kVectorOpsAvx2;
#endif
  return kVectorOpsPortable;
}

}  // namespace qf
