#include "kernels/emulate/convert.h"

#include <cstring>

#include "base/half.h"

namespace qf {

void narrow_span(Isa isa, Narrow narrow, float* values, int64_t count) {
  if (narrow == Narrow::none) return;
#if defined(__x86_64__)
  if (narrow == Narrow::fp16 && isa != Isa::portable) return avx2::narrow_half(values, count);
#endif
  for (int64_t i = 0; i < count; ++i)
    values[i] = narrow == Narrow::fp16 ? round_to_half(values[i]) : round_to_bf16(values[i]);
}

void widen_span(Isa isa, Format format, const void* bits, float* values, int64_t count) {
  const uint16_t* halves = static_cast<const uint16_t*>(bits);
  switch (format) {
    case Format::fp32: std::memcpy(values, bits, static_cast<size_t>(count) * sizeof(float)); return;
    case Format::bf16:
      for (int64_t i = 0; i < count; ++i) values[i] = bf16_to_float(halves[i]);
      return;
    case Format::fp16:
#if defined(__x86_64__)
      if (isa != Isa::portable) return avx2::widen_half(halves, values, count);
#endif
      for (int64_t i = 0; i < count; ++i) values[i] = half_to_float(halves[i]);
  }
}

void store_span(Isa isa, Format format, const float* values, void* bits, int64_t count) {
  uint16_t* halves = static_cast<uint16_t*>(bits);
  switch (format) {
    case Format::fp32:  // which NaN a CPU's addition gives depends on the order that a compiler chose for its operands
      for (int64_t i = 0; i < count; ++i) {
        const float value = values[i] != values[i] ? bits_float(kCanonicalNan) : values[i];
        std::memcpy(static_cast<char*>(bits) + i * static_cast<int64_t>(sizeof value), &value, sizeof value);
      }
      return;
    case Format::bf16:
      for (int64_t i = 0; i < count; ++i) halves[i] = float_to_bf16(values[i]);
      return;
    case Format::fp16:
#if defined(__x86_64__)
      if (isa != Isa::portable) return avx2::store_half(values, halves, count);
#endif
      for (int64_t i = 0; i < count; ++i) halves[i] = float_to_half(values[i]);
  }
}

void row_cell_span(Isa isa, int lowest, const float* values, uint32_t* cells, int64_t count) {
#if defined(__x86_64__)
  if (isa != Isa::portable) return avx2::row_cells(lowest, values, cells, count);
#endif
  for (int64_t i = 0; i < count; ++i) cells[i] = row_cell(values[i], lowest);
}

void panel_code_span(Isa isa, int lowest, const float* values, const PanelCodes& codes, int64_t k_count) {
#if defined(__x86_64__)
  if (isa != Isa::portable) return avx2::panel_codes(lowest, values, codes, k_count);
#endif
  for (int64_t k = 0; k < k_count; ++k) {
    for (int c = 0; c < kPanelWidth; ++c) put_exponent_code(codes, k, c, lowest, values[k * kPanelWidth + c]);
  }
}

}  // namespace qf
