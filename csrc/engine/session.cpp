#include "engine/session.h"

#include <algorithm>

namespace qf {
namespace {

struct Running {
  const SequenceRequest* request;
  SequenceResult* result;
  KvCache cache;
  int64_t next = 0;  // the token of the coming decode step
};

/// Logprobs of the token after each of these rows of hidden states, one row per running sequence.
void capture_next(Transformer& model, const at::Tensor& hidden, const std::vector<Running*>& active, int64_t top_k) {
  model.logits(hidden, [&](int64_t first, const at::Tensor& logits) {
    std::vector<RowCapture> captures;
    for (int64_t i = 0; i < logits.size(0); ++i) {
      const Running& run = *active[static_cast<size_t>(first + i)];
      const auto step = run.result->generated.size();
      const auto& forced = run.request->forced;
      const int32_t target = forced.empty() ? -1 : static_cast<int32_t>(forced[step]);
      captures.push_back({target, &run.request->decode_ids, static_cast<int64_t>(step), &run.result->decode});
    }
    capture_logprobs(model, logits, captures, top_k);
    for (int64_t i = 0; i < logits.size(0); ++i) {
      Running& run = *active[static_cast<size_t>(first + i)];
      run.next = run.result->decode.targets.back();
      run.result->generated.push_back(run.next);
    }
  });
}

/// vLLM asks for the prompt's logprobs with one lm_head call over all but the last row of a sequence.
void capture_prompt(Transformer& model, const at::Tensor& hidden, Running& run, int64_t top_k) {
  const auto& prompt = run.request->prompt;
  if (prompt.size() < 2 || !run.request->prompt_logprobs) return;
  const int64_t rows = static_cast<int64_t>(prompt.size()) - 1;
  model.logits(hidden.narrow(0, 0, rows), [&](int64_t first, const at::Tensor& logits) {
    std::vector<RowCapture> captures;
    for (int64_t row = first; row < first + logits.size(0); ++row) {
      const auto target = static_cast<int32_t>(prompt[static_cast<size_t>(row) + 1]);
      captures.push_back({target, &run.request->prefill_ids, row, &run.result->prefill});
    }
    capture_logprobs(model, logits, captures, top_k);
  });
}

void prefill(Transformer& model, std::vector<Running>& running, int64_t top_k, SessionResult& result) {
  std::vector<Segment> segments;
  int64_t rows = 0;
  for (Running& run : running) {
    const auto& prompt = run.request->prompt;
    segments.push_back({&run.cache, prompt.data(), static_cast<int64_t>(prompt.size())});
    rows += static_cast<int64_t>(prompt.size());
  }
  const at::Tensor hidden = model.forward(segments);
  result.steps.push_back({true, rows});
  std::vector<Running*> active;
  std::vector<at::Tensor> last;
  int64_t row = 0;
  for (Running& run : running) {
    const int64_t count = static_cast<int64_t>(run.request->prompt.size());
    capture_prompt(model, hidden.narrow(0, row, count), run, top_k);
    row += count;
    if (run.request->new_tokens > 0) {
      active.push_back(&run);
      last.push_back(hidden.narrow(0, row - 1, 1));
    }
  }
  if (!active.empty()) capture_next(model, at::cat(last), active, top_k);
}

}  // namespace

SessionResult run_session(Transformer& model, const std::vector<SequenceRequest>& requests, int64_t top_k,
                          const Progress& progress) {
  require(!requests.empty(), "no sequence to run");
  SessionResult result;
  result.sequences.resize(requests.size());
  std::vector<Running> running;
  int64_t prompt_tokens = 0, longest = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    const SequenceRequest& request = requests[i];
    require(!request.prompt.empty(), "sequence ", i, ": the prompt is empty");
    const int64_t prompt = static_cast<int64_t>(request.prompt.size());
    running.push_back(
        {&request, &result.sequences[i], model.new_cache(prompt + std::max<int64_t>(request.new_tokens, 1))});
    prompt_tokens += prompt;
    longest = std::max(longest, request.new_tokens);
  }
  const int64_t total = prompt_tokens + std::max<int64_t>(longest - 1, 0);
  model.take_notes();
  prefill(model, running, top_k, result);
  result.prefill_notes = model.take_notes();
  progress(prompt_tokens, total);
  for (int64_t step = 1; step < longest; ++step) {
    std::vector<Running*> active;
    std::vector<Segment> segments;
    for (Running& run : running) {
      if (step >= run.request->new_tokens) continue;
      active.push_back(&run);
      segments.push_back({&run.cache, &run.next, 1});
    }
    const at::Tensor hidden = model.forward(segments);
    result.steps.push_back({false, static_cast<int64_t>(active.size())});
    capture_next(model, hidden, active, top_k);
    progress(prompt_tokens + step, total);
  }
  result.decode_notes = model.take_notes();
  return result;
}

}  // namespace qf
