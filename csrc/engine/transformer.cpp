#include "engine/transformer.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/integers.h"
#include "engine/check_weights.h"

namespace qf {
namespace {

std::byte* bytes(const at::Tensor& tensor) { return static_cast<std::byte*>(tensor.data_ptr()); }

}  // namespace

Transformer::Transformer(ModelConfig config, DType dtype, OperatorSet operators, Machine machine, ModelWeights weights)
    : config_(config),
      dtype_(dtype),
      operators_(std::move(operators)),
      machine_(machine),
      weights_(std::move(weights)) {
  check_weights(config_, dtype_, weights_);
}

void Transformer::reseed(uint64_t seed) {
  machine_.seed = seed;
  calls_ = 0;
}

at::Tensor Transformer::tokens(const std::vector<int64_t>& ids_positions, bool decode) {
  const auto rows = static_cast<int64_t>(ids_positions.size()) / 2;
  at::Tensor out = decode ? decode_tokens_[rows] : at::Tensor();
  if (!out.defined()) out = machine_.backend->new_tensor(at::kLong, {2, rows});
  if (decode) decode_tokens_[rows] = out;
  machine_.backend->write(out, ids_positions.data());
  return out;
}

Transformer::Batch Transformer::make_batch(const std::vector<Segment>& segments) {
  std::vector<int64_t> ids, token_positions;
  bool decode = true;
  for (const Segment& segment : segments) {
    const int64_t first = segment.cache->length();
    decode = decode && segment.count == 1;
    require(first + segment.count <= positions(), "sequence of ", first + segment.count, " tokens: the model has ",
            positions(), " positions");
    for (int64_t i = 0; i < segment.count; ++i) {
      const int64_t id = segment.ids[i];
      require(id >= 0 && id < config_.vocabulary, "token id ", id, " at position ", first + i, ": the vocabulary has ",
              config_.vocabulary, " entries");
      ids.push_back(id);
      token_positions.push_back(first + i);
    }
  }
  const auto rows = static_cast<int64_t>(ids.size());
  ids.insert(ids.end(), token_positions.begin(), token_positions.end());
  return {rows, tokens(ids, decode), &segments, calls_};
}

at::Tensor Transformer::embed(const Batch& batch) {
  at::Tensor out = machine_.backend->new_tensor(dtype_, {batch.rows, config_.hidden});
  const int64_t* ids = batch.ids();
  if (weights_.embedding.defined()) {
    run(operators_.embedding, EmbeddingArgs{dtype_, weights_.embedding.data_ptr(), ids, out.data_ptr(),
                                            config_.vocabulary, config_.hidden, batch.rows});
    return out;
  }
  weights_.lm_head->weight().copy_rows(ids, batch.rows, kernel_format(dtype_), out.data_ptr());
  return out;
}

void Transformer::note_plan(Linear& layer, int64_t rows) {
  const Plan& plan = layer.plan(machine_, dtype_, rows);
  notes_.unconfirmed.insert(plan.unconfirmed.begin(), plan.unconfirmed.end());
  // one or two addends give the same sum in either order
  const bool races =
      std::any_of(plan.trees.begin(), plan.trees.end(), [](const Tree& t) { return t.racing && t.leaves.size() > 2; });
  if (races) notes_.racing.insert(plan.kernel);
  if (layer.reordered())
    notes_.unconfirmed.insert(plan.kernel + ": activation order, equal groups in the file's order (source only)");
}

at::Tensor Transformer::linear(Linear& layer, const at::Tensor& x) {
  note_plan(layer, x.size(0));
  return layer.run(machine_, dtype_, x, calls_++);
}

at::Tensor Transformer::norm(const at::Tensor& weight, const at::Tensor& x) {
  at::Tensor out = machine_.backend->new_tensor(dtype_, x.sizes());
  RmsNormArgs args{};
  args.dtype = dtype_;
  args.x = x.data_ptr();
  args.out = out.data_ptr();
  args.weight = weight.data_ptr();
  args.rows = x.size(0);
  args.columns = args.stride = config_.hidden;
  args.epsilon = config_.rms_epsilon;
  run(operators_.rms_norm, args);
  return out;
}

void Transformer::add_norm(const at::Tensor& weight, at::Tensor& x, at::Tensor& residual) {
  const FusedAddRmsNormArgs args{
      dtype_,    x.data_ptr(),   residual.data_ptr(), weight.data_ptr(), x.data_ptr(), residual.data_ptr(),
      x.size(0), config_.hidden, config_.rms_epsilon};
  run(operators_.fused_add_rms_norm, args);
}

std::vector<RmsNormArgs> Transformer::head_norms(const LayerWeights& layer, const Batch& batch, void* qkv) const {
  if (!layer.q_norm.defined()) return {};
  std::vector<RmsNormArgs> out;
  for (const bool key : {false, true}) {
    RmsNormArgs args{};
    args.dtype = dtype_;
    args.x = args.out = static_cast<std::byte*>(qkv) + (key ? config_.q_columns() : 0) * dtype_bytes(dtype_);
    args.weight = (key ? layer.k_norm : layer.q_norm).data_ptr();
    args.inner_rows = key ? config_.kv_heads : config_.heads;
    args.rows = batch.rows * args.inner_rows;
    args.columns = args.inner_stride = config_.head_size;
    args.stride = config_.qkv_columns();
    args.epsilon = config_.rms_epsilon;
    out.push_back(args);
  }
  return out;
}

RotaryArgs Transformer::rotation(const Batch& batch, void* x, int64_t heads) const {
  return {dtype_,
          batch.positions(),
          weights_.rotary_cache.data_ptr(),
          x,
          batch.rows,
          heads,
          config_.head_size,
          config_.qkv_columns(),
          positions()};
}

void Transformer::prepare_heads(int64_t index, const Batch& batch, at::Tensor& qkv) {
  const int64_t width = dtype_bytes(dtype_), q_bytes = config_.q_columns() * width;
  std::byte* const q = bytes(qkv);
  HeadCall call{head_norms(weights_.layers[static_cast<size_t>(index)], batch, q),
                rotation(batch, q, config_.heads),
                rotation(batch, q + q_bytes, config_.kv_heads),
                {}};
  int64_t row = 0;
  for (const Segment& segment : *batch.segments) {
    std::byte* const k = q + row * config_.qkv_columns() * width + q_bytes;
    call.stores.push_back({dtype_, k, k + config_.kv_columns() * width, batch.positions() + row,
                           segment.cache->keys(index), segment.cache->values(index), segment.count,
                           config_.kv_columns(), config_.qkv_columns()});
    row += segment.count;
  }
  const bool done = machine_.backend->run_heads(call);
  const auto each = [&](const auto& definition, const auto& args) {
    if (!done) machine_.backend->run(args);
    definition.add_unconfirmed(args, notes_.unconfirmed);
  };
  for (const RmsNormArgs& args : call.norms) each(operators_.rms_norm, args);
  each(operators_.rotary, call.queries);
  each(operators_.rotary, call.keys);
  if (done) return;
  for (const CacheRowsArgs& args : call.stores) machine_.backend->store(args);
}

at::Tensor Transformer::attention(int64_t index, const Batch& batch, const at::Tensor& x) {
  LayerWeights& layer = weights_.layers[static_cast<size_t>(index)];
  at::Tensor qkv = linear(*layer.qkv, x);
  prepare_heads(index, batch, qkv);
  at::Tensor out = machine_.backend->new_tensor(dtype_, {batch.rows, config_.q_columns()});
  std::vector<AttentionSequence> sequences;
  int64_t row = 0;
  for (const Segment& segment : *batch.segments) {
    std::byte* const q = bytes(qkv) + row * config_.qkv_columns() * dtype_bytes(dtype_);
    sequences.push_back({q, segment.cache->keys(index), segment.cache->values(index),
                         bytes(out) + row * config_.q_columns() * dtype_bytes(dtype_), segment.count,
                         segment.cache->length(), segment.cache->panels(index)});
    row += segment.count;
  }
  run(operators_.attention, attention_args(sequences));
  return linear(*layer.o, out);
}

AttentionArgs Transformer::attention_args(const std::vector<AttentionSequence>& sequences) const {
  const MatrixUnit& unit = dtype_ == DType::bf16 ? machine_.device.bf16 : machine_.device.fp16;
  const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(config_.head_size)));
  return {dtype_,
          sequences.data(),
          static_cast<int64_t>(sequences.size()),
          config_.heads,
          config_.kv_heads,
          config_.head_size,
          config_.qkv_columns(),
          config_.kv_columns(),
          config_.kv_columns(),
          config_.q_columns(),
          scale,
          machine_.device.sm_count,
          unit};
}

at::Tensor Transformer::mlp(LayerWeights& layer, const at::Tensor& x) {
  const at::Tensor gate_up = linear(*layer.gate_up, x);
  at::Tensor hidden = machine_.backend->new_tensor(dtype_, {x.size(0), config_.intermediate});
  const SiluAndMulArgs args{dtype_, gate_up.data_ptr(), hidden.data_ptr(), x.size(0), config_.intermediate};
  run(operators_.silu_and_mul, args);
  return linear(*layer.down, hidden);
}

at::Tensor Transformer::forward(const std::vector<Segment>& segments) {
  const Batch batch = make_batch(segments);
  for (const Segment& segment : segments) segment.cache->advance(segment.count);
  const StepKey key = step_key(batch);
  const auto work = [&] { return run_layers(batch); };
  const StepOutcome outcome = key.empty() ? work() : steps_.run(*machine_.backend, key, work);
  calls_ = batch.first_call + outcome.calls;
  notes_.unconfirmed.insert(outcome.notes.unconfirmed.begin(), outcome.notes.unconfirmed.end());
  notes_.racing.insert(outcome.notes.racing.begin(), outcome.notes.racing.end());
  return outcome.hidden;
}

StepKey Transformer::step_key(const Batch& batch) {
  if (!recording_ || batch.rows != static_cast<int64_t>(batch.segments->size())) return {};
  std::vector<AttentionSequence> sequences;
  for (const Segment& s : *batch.segments) {
    sequences.push_back({nullptr, nullptr, nullptr, nullptr, 1, s.cache->length(), nullptr});
  }
  const AttentionArgs attention = attention_args(sequences);
  StepKey key = machine_.backend->prepare_attention(attention);
  if (key.empty()) return key;
  operators_.attention.add_unconfirmed(attention, notes_.unconfirmed);  // what it says of these key counts
  for (const Segment& s : *batch.segments) {
    for (int64_t i = 0; i < config_.layers; ++i) {
      for (const void* memory : {s.cache->keys(i), s.cache->values(i)}) {
        key.push_back(static_cast<int64_t>(reinterpret_cast<intptr_t>(memory)));
      }
    }
  }
  return key;
}

StepOutcome Transformer::run_layers(const Batch& batch) {
  PathNotes before = take_notes();
  calls_ = batch.first_call;
  at::Tensor residual = embed(batch), x;
  for (int64_t i = 0; i < config_.layers; ++i) {
    LayerWeights& layer = weights_.layers[static_cast<size_t>(i)];
    if (i == 0) {
      x = norm(layer.input_norm, residual);
    } else {
      add_norm(layer.input_norm, x, residual);
    }
    x = attention(i, batch, x);
    add_norm(layer.post_attention_norm, x, residual);
    x = mlp(layer, x);
  }
  add_norm(weights_.final_norm, x, residual);
  StepOutcome out{x, calls_ - batch.first_call, std::exchange(notes_, std::move(before))};
  out.repeatable = out.notes.racing.empty() || machine_.deterministic;  // the calls' numbers draw the order of a race
  return out;
}

LogprobAnswer Transformer::logprobs(const at::Tensor& logits, const LogprobQuery& query) {
  const int64_t rows = logits.size(0), columns = logits.size(1);
  operators_.log_softmax.add_unconfirmed({dtype_, nullptr, nullptr, rows, columns, logits.stride(0)},
                                         notes_.unconfirmed);
  operators_.top_k.add_unconfirmed({nullptr, rows, columns, query.top_k, nullptr, nullptr}, notes_.unconfirmed);
  return machine_.backend->logprobs(logits, query);
}

void Transformer::logits(const at::Tensor& hidden, const LogitsBlock& block) {
  const int64_t rows = hidden.size(0);
  const int64_t most = machine_.backend->logits_rows(config_.vocabulary * dtype_bytes(dtype_));
  const int64_t blocks = std::max<int64_t>(1, ceil_div(rows, most)), step = ceil_div(ceil_div(rows, blocks), 16) * 16;
  note_plan(*weights_.lm_head, rows);
  const uint64_t call = calls_++;
  for (int64_t first = 0; first < rows; first += step) {
    block(first, weights_.lm_head->run_rows(machine_, dtype_, hidden, call, first, std::min(step, rows - first)));
  }
}

namespace {

using NamedLinears = std::vector<std::pair<std::string, const Linear*>>;

void append(const LayerWeights& layer, NamedLinears& out) {
  out.insert(out.end(), {{"qkv_proj", layer.qkv.get()},
                         {"o_proj", layer.o.get()},
                         {"gate_up_proj", layer.gate_up.get()},
                         {"down_proj", layer.down.get()}});
}

}  // namespace

NamedLinears Transformer::linear_kinds() const {
  NamedLinears out;
  append(weights_.layers.front(), out);
  out.emplace_back("lm_head", weights_.lm_head.get());
  return out;
}

NamedLinears Transformer::all_linears() const {
  NamedLinears out;
  for (const LayerWeights& layer : weights_.layers) append(layer, out);
  out.emplace_back("lm_head", weights_.lm_head.get());
  return out;
}

}  // namespace qf
