// Replay (ids given) and generation (greedy), with every step run as the engine runs it: prompts first, whole or in
// chunks, then one token per sequence and step.
#pragma once

#include <functional>
#include <limits>
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

/// Rows (M) of one forward pass; `prefill` where any of them is of a prompt.
struct StepRecord {
  bool prefill;
  int64_t rows;
};

struct SessionResult {
  std::vector<SequenceResult> sequences;
  std::vector<StepRecord> steps;
  PathNotes prefill_notes, decode_notes;  // steps with rows of a prompt, and those without
};

/// How the steps of a session are made.
struct SessionOptions {
  int64_t top_k;
  int64_t max_rows = std::numeric_limits<int64_t>::max();  // of a step: a longer prompt goes through in chunks
};

/// Called after every forward pass with the rows done and the total; may throw to stop.
using Progress = std::function<void(int64_t done, int64_t total)>;

/// Runs the sequences as one batch, by vLLM V1's schedule: in their order, each takes what is left of its prompt, or
/// one row of decoding, while the step has room.
SessionResult run_session(Transformer& model, const std::vector<SequenceRequest>& requests,
                          const SessionOptions& options, const Progress& progress);

}  // namespace qf
