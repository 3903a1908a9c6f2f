// Rows of an embedding table. A copy: the same in every engine.
#pragma once

#include "operators/context.h"

namespace qf {

struct EmbeddingArgs {
  DType dtype;
  const void* table;   // [vocabulary][columns]
  const int64_t* ids;  // [rows]
  void* out;           // [rows][columns]
  int64_t vocabulary;
  int64_t columns;
  int64_t rows;
};

void embedding_copy(const OperatorContext& context, const EmbeddingArgs& args);

}  // namespace qf
