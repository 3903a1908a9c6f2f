// Whether a model's weights are all there and have the sizes that its configuration asks for.
#pragma once

#include "engine/transformer.h"

namespace qf {

/// Throws Error that names the tensor, what was expected and what was found.
void check_weights(const ModelConfig& config, DType dtype, const ModelWeights& weights);

}  // namespace qf
