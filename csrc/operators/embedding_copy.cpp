#include "operators/embedding.h"

#include <cstring>

#include "base/error.h"

namespace qf {

void embedding_copy(const OperatorContext& /*context*/, const EmbeddingArgs& args) {
  const size_t bytes = static_cast<size_t>(args.columns * dtype_bytes(args.dtype));
  for (int64_t row = 0; row < args.rows; ++row) {
    const int64_t id = args.ids[row];
    require(id >= 0 && id < args.vocabulary, "token id ", id, " at position ", row, " is outside the vocabulary of ",
            args.vocabulary);
    std::memcpy(static_cast<char*>(args.out) + static_cast<size_t>(row) * bytes,
                static_cast<const char*>(args.table) + static_cast<size_t>(id) * bytes, bytes);
  }
}

}  // namespace qf
