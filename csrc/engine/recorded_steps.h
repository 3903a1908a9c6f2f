// Decode steps that a backend has recorded. A step is recorded when it comes the second time: in the first, whatever is
// made lazily was made.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "engine/backend.h"

namespace qf {

/// What a recording depends on: a step whose numbers are the same is served by it.
using StepKey = std::vector<int64_t>;

/// A step's result and what the engine counts of it.
struct StepOutcome {
  at::Tensor hidden;
  uint64_t calls = 0;  // of linear layers
  PathNotes notes;
  bool repeatable = true;  // false: it depends on more than its key
};

class RecordedSteps {
 public:
  /// Runs the step, by its recording where there is one. `work` runs it call by call.
  const StepOutcome& run(Backend& backend, const StepKey& key, const std::function<StepOutcome()>& work);

 private:
  struct Step {
    int seen = 0;
    StepOutcome outcome;
    std::unique_ptr<Recording> recording;
  };
  std::map<StepKey, Step> steps_;
};

}  // namespace qf
