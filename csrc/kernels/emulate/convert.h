// Spans of numbers between formats, per instruction set; same bits everywhere.
#pragma once

#include <cstdint>

#include "kernels/plan.h"
#include "numerics/isa.h"

namespace qf {

/// Rounds in place to the narrower format, kept as fp32.
void narrow_span(Isa isa, Narrow narrow, float* values, int64_t count);
/// bits (of fp16, bf16 or fp32) -> fp32.
void widen_span(Isa isa, Format format, const void* bits, float* values, int64_t count);
/// fp32 -> bits, rounded to nearest; NaN becomes 0x7FFF (0x7FFFFFFF) as on a GPU.
void store_span(Isa isa, Format format, const float* values, void* bits, int64_t count);
/// row_cell of every value.
void row_cell_span(Isa isa, int lowest, const float* values, uint32_t* cells, int64_t count);
/// Exponent codes of a panel's values [k_count][16]; the cells' other lanes are kept.
void panel_code_span(Isa isa, int lowest, const float* values, const PanelCodes& codes, int64_t k_count);

namespace avx2 {
void narrow_half(float* values, int64_t count);
void widen_half(const uint16_t* bits, float* values, int64_t count);
void store_half(const float* values, uint16_t* bits, int64_t count);
void row_cells(int lowest, const float* values, uint32_t* cells, int64_t count);
void panel_codes(int lowest, const float* values, const PanelCodes& codes, int64_t k_count);
}  // namespace avx2

}  // namespace qf
