#include "operators/attention_panels.h"

#include <algorithm>

#include "base/error.h"
#include "operators/vector_ops.h"

namespace qf {

KeyValuePanels::KeyValuePanels(int64_t kv_heads, int64_t head_size) : head_size_(head_size) {
  require(kv_heads > 0 && kv_heads <= 65536 && head_size > 0 && head_size <= 65536 && head_size % kPanelWidth == 0,
          "key and value panels: ", kv_heads, " heads of size ", head_size, " (1 .. 65536, the size a multiple of 16)");
  heads_.resize(static_cast<size_t>(kv_heads));
}

ChainPanel KeyValuePanels::keys_panel(int64_t kv_head, int64_t p) const {
  const Head& head = heads_[static_cast<size_t>(kv_head)];
  const int64_t offset = p * kPanelWidth * head_size_;
  return {head.k.data() + offset, head.k_exponent.data() + offset};
}

ChainPanel KeyValuePanels::values_panel(int64_t kv_head, int64_t p, int64_t first) const {
  const Head& head = heads_[static_cast<size_t>(kv_head)];
  const int64_t offset = (p * capacity_ + first) * kPanelWidth;
  return {head.v.data() + offset, head.v_exponent.data() + offset};
}

void KeyValuePanels::put(Head& head, int64_t key, const float* k, const float* v, int lowest) {
  const int64_t column = key % kPanelWidth, panel = (key - column) * head_size_;
  for (int64_t d = 0; d < head_size_; ++d) {
    head.k[static_cast<size_t>(panel + d * kPanelWidth + column)] = k[d];
    head.k_exponent[static_cast<size_t>(panel + panel_exponent_index(d, static_cast<int>(column)))] =
        column_exponent(k[d], lowest);
    const int64_t values = d / kPanelWidth * capacity_ * kPanelWidth;
    const int element = static_cast<int>(d % kPanelWidth);
    head.v[static_cast<size_t>(values + key * kPanelWidth + element)] = v[d];
    head.v_exponent[static_cast<size_t>(values + panel_exponent_index(key, element))] = column_exponent(v[d], lowest);
  }
}

void KeyValuePanels::truncate(int64_t keys) {
  require(keys >= 0 && keys <= keys_, "key and value panels: cannot keep ", keys, " of ", keys_, " tokens");
  const std::vector<float> zeros(static_cast<size_t>(head_size_), 0.0f);
  for (Head& head : heads_) {
    for (int64_t key = keys; key < keys_; ++key) put(head, key, zeros.data(), zeros.data(), 0);
  }
  keys_ = keys;
}

void KeyValuePanels::reserve(int64_t keys) {
  if (keys <= capacity_) return;
  const int64_t old = capacity_;
  const int64_t wanted = old == 0 ? keys : std::max(keys, old + old / 2);  // a prefill alone wastes nothing
  capacity_ = (wanted + kPanelWidth - 1) / kPanelWidth * kPanelWidth;
  const size_t size = static_cast<size_t>(capacity_ * head_size_);
  for (Head& head : heads_) {
    head.k.resize(size, 0.0f);
    head.k_exponent.resize(size, kZeroExponent);
    std::vector<float> v(size, 0.0f);
    std::vector<int16_t> v_exponent(size, kZeroExponent);
    for (int64_t p = 0; p < head_size_ / kPanelWidth; ++p) {
      std::copy_n(head.v.begin() + p * old * kPanelWidth, old * kPanelWidth, v.begin() + p * capacity_ * kPanelWidth);
      std::copy_n(head.v_exponent.begin() + p * old * kPanelWidth, old * kPanelWidth,
                  v_exponent.begin() + p * capacity_ * kPanelWidth);
    }
    head.v.swap(v);
    head.v_exponent.swap(v_exponent);
  }
}

void KeyValuePanels::prepare(const OperatorContext& context, const KeyValueSource& source, int64_t kv_head,
                             int64_t first, int64_t last) {
  const VectorOps& ops = vector_ops(context.isa);
  const int lowest = source.dtype == DType::fp16 ? -14 : -126;
  Head& head = heads_[static_cast<size_t>(kv_head)];
  std::vector<float> k(static_cast<size_t>(head_size_)), v(k.size());
  for (int64_t key = first; key < last; ++key) {
    const int64_t offset = kv_head * head_size_;
    ops.widen(source.dtype, static_cast<const uint16_t*>(source.k) + key * source.k_stride + offset, head_size_,
              k.data());
    ops.widen(source.dtype, static_cast<const uint16_t*>(source.v) + key * source.v_stride + offset, head_size_,
              v.data());
    put(head, key, k.data(), v.data(), lowest);
  }
}

void KeyValuePanels::extend(const OperatorContext& context, const KeyValueSource& source) {
  require(source.dtype != DType::fp32, "key and value panels hold fp16 or bf16");
  if (source.keys <= keys_) return;
  reserve(source.keys);
  constexpr int64_t kChunk = 128;  // tokens of one item of work
  const int64_t chunks = (source.keys - keys_ + kChunk - 1) / kChunk;
  const int64_t heads = static_cast<int64_t>(heads_.size());
  context.pool->run(heads * chunks, [&](int64_t item) {
    const int64_t first = keys_ + item / heads * kChunk;
    prepare(context, source, item % heads, first, std::min(first + kChunk, source.keys));
  });
  keys_ = source.keys;
}

}  // namespace qf
