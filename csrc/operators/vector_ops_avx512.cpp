#if defined(__x86_64__)
#include "operators/vector_ops.h"
#include "operators/vector_ops_loops.h"

namespace qf {

const VectorOps kVectorOpsAvx512 = QF_VECTOR_OPS;

}  // namespace qf
#endif
