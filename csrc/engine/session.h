// Replay (ids given) and generation (greedy), with every step run as the engine runs it: the prompt as one prefill,
// then one token per sequence and step.
#pragma once

#include <functional>
#include <vector>

#include "engine/capture.h"
#include "engine/transformer.h"

namespace qf {

struct SequenceRequest {
  std::vector<int64_t> prompt;
  std::vector<int64_t> forced;  // ids to force, one per decode step; empty: generate
  int64_t new_tokens = 0;       // decode rows wanted (forced.size() when forced)
  bool prompt_logprobs = true;
  RequestedIds prefill_ids, decode_ids;
};

struct SequenceResult {
  std::vector<int64_t> generated;
  LogprobRows prefill;  // row i predicts prompt[i + 1]
  LogprobRows decode;   // row i predicts generated[i]
};

/// Rows (M) of one forward pass.
struct StepRecord {
  bool prefill;
  int64_t rows;
};

struct SessionResult {
  std::vector<SequenceResult> sequences;
  std::vector<StepRecord> steps;
  PathNotes prefill_notes, decode_notes;  // the first decode row is the prefill's last
};

/// Called after every forward pass with the tokens done and the total; may throw to stop.
using Progress = std::function<void(int64_t done, int64_t total)>;

/// Runs the sequences as one batch: all prompts in one prefill step, then all sequences decode together.
SessionResult run_session(Transformer& model, const std::vector<SequenceRequest>& requests, int64_t top_k,
                          const Progress& progress);

}  // namespace qf
