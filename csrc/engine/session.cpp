#include "engine/session.h"

#include <algorithm>

namespace qf {
namespace {

struct Running {
  const SequenceRequest* request;
  SequenceResult* result;
  KvCache cache;
  int64_t next = 0;  // the token of the coming decode step

  int64_t prompt() const { return static_cast<int64_t>(request->prompt.size()); }
  /// Rows that are ready to run.
  int64_t wanted() const {
    if (cache.length() < prompt()) return prompt() - cache.length();
    return static_cast<int64_t>(result->generated.size()) < request->new_tokens ? 1 : 0;
  }
  /// Rows over the whole session: the last token is never fed back.
  int64_t total() const { return prompt() + std::max<int64_t>(request->new_tokens - 1, 0); }
};

/// A sequence's part of a step: rows [first_row, first_row + count) of it, from this position on.
struct Part {
  Running* run;
  int64_t position, count, first_row;

  bool of_prompt() const { return position < run->prompt(); }
  /// Whether a token follows it; chunks before a prompt's last one give none.
  bool completes() const { return position + count >= run->prompt(); }
};

class Session {
 public:
  Session(Transformer& model, const std::vector<SequenceRequest>& requests, const SessionOptions& options)
      : model_(model), options_(options) {
    result_.sequences.resize(requests.size());
    for (size_t i = 0; i < requests.size(); ++i) {
      const SequenceRequest& request = requests[i];
      require(!request.prompt.empty(), "sequence ", i, ": the prompt is empty");
      const int64_t capacity = static_cast<int64_t>(request.prompt.size()) + std::max<int64_t>(request.new_tokens, 1);
      running_.push_back({&request, &result_.sequences[i], model.new_cache(capacity)});
    }
  }

  SessionResult run(const Progress& progress) {
    int64_t total = 0, done = 0;
    for (const Running& run : running_) total += run.total();
    model_.take_notes();
    for (std::vector<Part> parts = schedule(); !parts.empty(); parts = schedule()) {
      const bool prefill = std::any_of(parts.begin(), parts.end(), [](const Part& part) { return part.of_prompt(); });
      const int64_t rows = step(parts);
      result_.steps.push_back({prefill, rows});
      add_notes(prefill ? result_.prefill_notes : result_.decode_notes);
      progress(done += rows, total);
    }
    return std::move(result_);
  }

 private:
  void add_notes(PathNotes& notes) {
    PathNotes found = model_.take_notes();
    notes.unconfirmed.merge(found.unconfirmed);
    notes.racing.merge(found.racing);
  }

  /// Who runs in the next step, by the order of the sequences.
  std::vector<Part> schedule() {
    std::vector<Part> parts;
    int64_t row = 0;
    for (Running& run : running_) {
      const int64_t count = std::min(run.wanted(), options_.max_rows - row);
      if (count <= 0) continue;
      parts.push_back({&run, run.cache.length(), count, row});
      row += count;
    }
    return parts;
  }

  /// Runs the parts and keeps what they answer. Returns the rows.
  int64_t step(const std::vector<Part>& parts) {
    std::vector<Segment> segments;
    for (const Part& part : parts) {
      const int64_t* ids = part.of_prompt() ? part.run->request->prompt.data() + part.position : &part.run->next;
      segments.push_back({&part.run->cache, ids, part.count});
    }
    const at::Tensor hidden = model_.forward(segments);
    for (const Part& part : parts) capture_prompt(part, hidden);
    capture_next(parts, hidden);
    return hidden.size(0);
  }

  /// vLLM asks for a chunk's logprobs with one lm_head call over its rows, without the prompt's last one.
  void capture_prompt(const Part& part, const at::Tensor& hidden) {
    const SequenceRequest& request = *part.run->request;
    const int64_t rows = std::min(part.count, part.run->prompt() - 1 - part.position);
    if (rows <= 0 || !request.prompt_logprobs) return;
    model_.logits(hidden.narrow(0, part.first_row, rows), [&](int64_t first, const at::Tensor& logits) {
      std::vector<RowCapture> captures;
      for (int64_t i = 0; i < logits.size(0); ++i) {
        const int64_t row = part.position + first + i;
        const auto target = static_cast<int32_t>(request.prompt[static_cast<size_t>(row) + 1]);
        captures.push_back({target, &request.prefill_ids, row, &part.run->result->prefill});
      }
      capture_logprobs(model_, logits, captures, options_.top_k);
    });
  }

  /// The token after each part's last row. vLLM computes logits after a chunk that is not the last as well (the rows of
  /// the lm_head's call count them), and drops them.
  void capture_next(const std::vector<Part>& parts, const at::Tensor& hidden) {
    std::vector<const Part*> sampled;
    std::vector<at::Tensor> last;
    bool any = false;
    for (const Part& part : parts) {
      if (part.run->request->new_tokens == 0) continue;
      sampled.push_back(&part);
      last.push_back(hidden.narrow(0, part.first_row + part.count - 1, 1));
      any |= part.completes();
    }
    if (!any) return;
    const bool every_row = static_cast<int64_t>(last.size()) == hidden.size(0);
    model_.logits(every_row ? hidden : at::cat(last), [&](int64_t first, const at::Tensor& logits) {
      std::vector<RowCapture> captures;
      captures.reserve(static_cast<size_t>(logits.size(0)));
      for (int64_t i = 0; i < logits.size(0); ++i)
        captures.push_back(next_row(*sampled[static_cast<size_t>(first + i)]));
      capture_logprobs(model_, logits, captures, options_.top_k);
      for (int64_t i = 0; i < logits.size(0); ++i) {
        const Part& part = *sampled[static_cast<size_t>(first + i)];
        if (!part.completes()) continue;
        part.run->next = part.run->result->decode.targets.back();
        part.run->result->generated.push_back(part.run->next);
      }
    });
  }

  RowCapture next_row(const Part& part) {
    if (!part.completes()) return {-1, &no_ids_, 0, nullptr};
    const SequenceRequest& request = *part.run->request;
    const auto index = part.run->result->generated.size();
    const int32_t target = request.forced.empty() ? -1 : static_cast<int32_t>(request.forced[index]);
    return {target, &request.decode_ids, static_cast<int64_t>(index), &part.run->result->decode};
  }

  Transformer& model_;
  const SessionOptions options_;
  const RequestedIds no_ids_;
  std::vector<Running> running_;
  SessionResult result_;
};

}  // namespace

SessionResult run_session(Transformer& model, const std::vector<SequenceRequest>& requests,
                          const SessionOptions& options, const Progress& progress) {
  require(!requests.empty(), "no sequence to run");
  require(options.max_rows >= 1, "max_num_batched_tokens must be at least 1, got ", options.max_rows);
  return Session(model, requests, options).run(progress);
}

}  // namespace qf
