// Which layers a kernel of vLLM 0.21 takes: its can_implement, as facts of the shape.
#pragma once

#include <cstdint>

namespace qf {

struct LayerShape {
  int64_t n, k;
  int64_t group;  // -1: one group over all of K
};

bool layer_any(const LayerShape& layer);
bool layer_machete(const LayerShape& layer);
bool layer_marlin(const LayerShape& layer);
bool layer_machete_and_marlin(const LayerShape& layer);

}  // namespace qf
