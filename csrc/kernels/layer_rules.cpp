#include "kernels/layer_rules.h"

namespace qf {

bool layer_any(const LayerShape&) { return true; }

bool layer_machete(const LayerShape& layer) {
  const bool group = layer.group == -1 || layer.group == 64 || layer.group == 128;
  return group && layer.k % 64 == 0 && layer.n % 128 == 0;
}

bool layer_marlin(const LayerShape& layer) {
  const bool group = layer.group == -1 || layer.group == 32 || layer.group == 64 || layer.group == 128;
  return group && layer.k % 128 == 0 && layer.n % 64 == 0;
}

bool layer_machete_and_marlin(const LayerShape& layer) { return layer_machete(layer) && layer_marlin(layer); }

}  // namespace qf
