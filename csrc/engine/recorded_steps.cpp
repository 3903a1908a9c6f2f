#include "engine/recorded_steps.h"

namespace qf {
namespace {

constexpr size_t kMostSteps = 64;  // kinds of step kept; beyond, all are forgotten

}  // namespace

const StepOutcome& RecordedSteps::run(Backend& backend, const StepKey& key, const std::function<StepOutcome()>& work) {
  if (steps_.size() >= kMostSteps && !steps_.contains(key)) steps_.clear();
  Step& step = steps_[key];
  if (step.recording == nullptr && ++step.seen == 2 && step.outcome.repeatable) {
    StepOutcome recorded;
    step.recording = backend.record([&] { recorded = work(); });
    if (step.recording != nullptr) step.outcome = std::move(recorded);
  }
  if (step.recording != nullptr) {
    step.recording->replay();
  } else {
    step.outcome = work();
  }
  return step.outcome;
}

}  // namespace qf
