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

namespace {

/// Codes of panel `panel`, whose k run over `k_count`; a head's vector of cells holds one block per panels that share.
PanelCodes codes_of(const std::vector<uint8_t>& cells, int64_t panel, int64_t k_count, int lowest) {
  const int64_t per_cell = panels_per_cell(lowest);
  uint8_t* const first = const_cast<uint8_t*>(cells.data());  // readers of a ChainPanel do not write
  return {first + panel / per_cell * k_count * kCellBytes, static_cast<int>(panel % per_cell)};
}

}  // namespace

ChainPanel KeyValuePanels::keys_panel(int64_t kv_head, int64_t p) const {
  const Head& head = heads_[static_cast<size_t>(kv_head)];
  return {head.k.data() + p * kPanelWidth * head_size_, codes_of(head.k_cells, p, head_size_, lowest_)};
}

ChainPanel KeyValuePanels::values_panel(int64_t kv_head, int64_t p, int64_t first) const {
  const Head& head = heads_[static_cast<size_t>(kv_head)];
  PanelCodes codes = codes_of(head.v_cells, p, capacity_, lowest_);
  codes.cells += first * kCellBytes;
  return {head.v.data() + (p * capacity_ + first) * kPanelWidth, codes};
}

void KeyValuePanels::put(Head& head, int64_t key, const float* k, const float* v) {
  const int64_t column = key % kPanelWidth, panel = key / kPanelWidth;
  const PanelCodes key_codes = codes_of(head.k_cells, panel, head_size_, lowest_);
  for (int64_t d = 0; d < head_size_; ++d) {
    head.k[static_cast<size_t>((panel * head_size_ + d) * kPanelWidth + column)] = k[d];
    put_exponent_code(key_codes, d, static_cast<int>(column), lowest_, k[d]);
    const int64_t element = d % kPanelWidth, p = d / kPanelWidth;
    head.v[static_cast<size_t>((p * capacity_ + key) * kPanelWidth + element)] = v[d];
    put_exponent_code(codes_of(head.v_cells, p, capacity_, lowest_), key, static_cast<int>(element), lowest_, v[d]);
  }
}

void KeyValuePanels::truncate(int64_t keys) {
  require(keys >= 0 && keys <= keys_, "key and value panels: cannot keep ", keys, " of ", keys_, " tokens");
  const std::vector<float> zeros(static_cast<size_t>(head_size_), 0.0f);
  for (Head& head : heads_) {
    for (int64_t key = keys; key < keys_; ++key) put(head, key, zeros.data(), zeros.data());
  }
  keys_ = keys;
}

void KeyValuePanels::reserve(int64_t keys) {
  if (keys <= capacity_) return;
  const int64_t old = capacity_;
  const int64_t wanted = old == 0 ? keys : std::max(keys, old + old / 2);  // a prefill alone wastes nothing
  capacity_ = (wanted + kPanelWidth - 1) / kPanelWidth * kPanelWidth;
  const size_t size = static_cast<size_t>(capacity_ * head_size_);
  const int64_t shared = panels_per_cell(lowest_) * kPanelWidth;  // keys or elements of one block of cells
  for (Head& head : heads_) {
    head.k.resize(size, 0.0f);
    head.k_cells.resize(static_cast<size_t>((capacity_ + shared - 1) / shared * head_size_ * kCellBytes), 0);
    std::vector<float> v(size, 0.0f);
    for (int64_t p = 0; p < head_size_ / kPanelWidth; ++p)
      std::copy_n(head.v.begin() + p * old * kPanelWidth, old * kPanelWidth, v.begin() + p * capacity_ * kPanelWidth);
    const int64_t blocks = (head_size_ + shared - 1) / shared;
    std::vector<uint8_t> v_cells(static_cast<size_t>(blocks * capacity_ * kCellBytes), 0);
    for (int64_t block = 0; block < blocks; ++block)
      std::copy_n(head.v_cells.begin() + block * old * kCellBytes, old * kCellBytes,
                  v_cells.begin() + block * capacity_ * kCellBytes);
    head.v.swap(v);
    head.v_cells.swap(v_cells);
  }
}

void KeyValuePanels::prepare(const OperatorContext& context, const KeyValueSource& source, int64_t kv_head,
                             int64_t first, int64_t last) {
  const VectorOps& ops = vector_ops(context.isa);
  Head& head = heads_[static_cast<size_t>(kv_head)];
  std::vector<float> k(static_cast<size_t>(head_size_)), v(k.size());
  for (int64_t key = first; key < last; ++key) {
    const int64_t offset = kv_head * head_size_;
    ops.widen(source.dtype, static_cast<const uint16_t*>(source.k) + key * source.k_stride + offset, head_size_,
              k.data());
    ops.widen(source.dtype, static_cast<const uint16_t*>(source.v) + key * source.v_stride + offset, head_size_,
              v.data());
    put(head, key, k.data(), v.data());
  }
}

void KeyValuePanels::extend(const OperatorContext& context, const KeyValueSource& source) {
  require(source.dtype != DType::fp32, "key and value panels hold fp16 or bf16");
  if (source.keys <= keys_) return;
  const int lowest = source.dtype == DType::fp16 ? -14 : -126;
  require(lowest_ == 0 || lowest_ == lowest, "key and value panels: the type changed");
  lowest_ = lowest;
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
