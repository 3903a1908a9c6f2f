// Whether single outputs of a race can be reached by some order: a search for witnesses.
#pragma once

#include "kernels/race/explain_race.h"

namespace qf {

/// Decides the outputs of one row; reach [n].
void reach_row(const RaceQuestion& question, Isa isa, int64_t row, Reach* reach);

}  // namespace qf
