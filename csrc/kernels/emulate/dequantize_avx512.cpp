#include <immintrin.h>

#include "kernels/emulate/dequantize.h"

namespace qf::avx512 {
namespace {

// A code becomes a float without shifts: its nibble is put under the exponent of a power of two, so that lane j holds
// offset + q exactly. Columns 0..7 (low nibbles, byte 2 of a lane): 128 + q; columns 8..15 (high nibbles, byte 1):
// 2048 + q. The offset goes away in the addend: (q - base) * scale + add = (offset + q) * scale + (add - (offset +
// base) * scale), all of it exact in fp32 (at most 12 + 11 bits). Beside a stored offset there is no room for that: it
// goes away first, q - base = (offset + q) - (offset + base).
__m512 lanes(float low, float high) { return _mm512_mask_mov_ps(_mm512_set1_ps(low), 0xFF00, _mm512_set1_ps(high)); }
__m512i lanes(int low, int high) {
  return _mm512_mask_mov_epi32(_mm512_set1_epi32(low), 0xFF00, _mm512_set1_epi32(high));
}

template <SumRule sum>
struct CodeLanes {
  __m512i spread[2], nibble, magic;
  __m512 base, scale, addend;

  explicit CodeLanes(const GroupRule& rule) {
    alignas(64) uint32_t index[2][kPanelWidth];  // byte 0x80 gives zero
    for (uint32_t row = 0; row < 2; ++row) {
      for (uint32_t j = 0; j < 8; ++j) {
        index[row][j] = 0x80008080u | (8 * row + j) << 16;
        index[row][j + 8] = 0x80800080u | (8 * row + j) << 8;
      }
      spread[row] = _mm512_load_si512(index[row]);
    }
    nibble = lanes(0x000F0000, 0x0000F000);
    magic = _mm512_castps_si512(lanes(128.0f, 2048.0f));
    scale = _mm512_load_ps(rule.scale);
    base = _mm512_add_ps(lanes(128.0f, 2048.0f), _mm512_load_ps(rule.base));
    addend = _mm512_load_ps(rule.add);
    if constexpr (sum == SumRule::common_unit) addend = _mm512_sub_ps(addend, _mm512_mul_ps(base, scale));
  }
  /// Row 0 or 1 of the 16 bytes that every quarter of `bytes` holds.
  __m512 weights(__m512i bytes, int row) const {
    const __m512i placed = _mm512_shuffle_epi8(bytes, spread[row]);
    const __m512i magic_code = _mm512_ternarylogic_epi32(placed, nibble, magic, 0xEA);  // (placed & nibble) | magic
    const __m512 offset_code = _mm512_castsi512_ps(magic_code);
    if constexpr (sum == SumRule::common_unit) return _mm512_fmadd_ps(offset_code, scale, addend);
    const __m512 code = _mm512_sub_ps(offset_code, base);
    return sum == SumRule::exact ? _mm512_fmadd_ps(code, scale, addend) : to_odd(code);
  }
  /// code * scale + addend rounded to odd. Rounded down and up, an inexact sum gives two neighbours, one of them odd;
  /// an exact one gives itself twice, except for zero, where up is right (+0, as rounded to nearest).
  __m512 to_odd(__m512 code) const {
    const __m512 down = _mm512_fmadd_round_ps(code, scale, addend, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    const __m512 up = _mm512_fmadd_round_ps(code, scale, addend, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC);
    const __mmask16 down_is_odd = _mm512_test_epi32_mask(_mm512_castps_si512(down), _mm512_set1_epi32(1));
    return _mm512_mask_mov_ps(up, down_is_odd, down);
  }
};

/// Puts codes of 16 columns into their lane of the cells.
struct CellWriter {
  uint8_t* cells;
  __m128i shift;
  __m512i mask;

  CellWriter(const PanelCodes& codes, int lowest) : cells(codes.cells) {
    const int bits = 8 * exponent_code_of(lowest).bytes;
    shift = _mm_cvtsi32_si128(codes.lane * bits);
    mask = _mm512_sll_epi32(_mm512_set1_epi32((1 << bits) - 1), shift);
  }
  void operator()(int64_t k, __m512i codes) const {
    uint8_t* const at = cells + k * kCellBytes;  // mask ? code : what is there
    const __m512i mixed = _mm512_ternarylogic_epi32(mask, _mm512_sll_epi32(codes, shift), _mm512_loadu_si512(at), 0xCA);
    _mm512_storeu_si512(at, mixed);
  }
};

/// Exponent codes of fp16 numbers, 32 at a time: a table of the exponent field; zeros apart from subnormals.
struct HalfCodes {
  __m512i table;

  HalfCodes() {
    alignas(64) int16_t fields[32];
    for (int i = 0; i < 32; ++i) {
      const int code = i == 31 ? kByteCode.special : (i == 0 ? 1 : i) - 15 + kByteCode.bias;
      fields[i] = static_cast<int16_t>(code);
    }
    table = _mm512_load_si512(fields);
  }
  __m512i operator()(__m256i first, __m256i second) const {
    const __m512i bits = _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
    const __mmask32 nonzero = _mm512_test_epi16_mask(bits, _mm512_set1_epi16(0x7FFF));
    return _mm512_maskz_permutexvar_epi16(nonzero, _mm512_srli_epi16(bits, 10), table);
  }
  /// Rows k and k + 1.
  void write(const CellWriter& writer, int64_t k, __m256i first, __m256i second) const {
    const __m512i codes = (*this)(first, second);
    writer(k, _mm512_cvtepu16_epi32(_mm512_castsi512_si256(codes)));
    writer(k + 1, _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(codes, 1)));
  }
};

/// Cells of two rows from the codes of four panels, each 16 words of the first row and 16 of the second.
struct CellPacker {
  __m512i rows[2];

  CellPacker() {
    alignas(64) int16_t index[2][32];
    for (int i = 0; i < 32; ++i) {
      index[0][i] = static_cast<int16_t>(i / 2 + 32 * (i & 1));
      index[1][i] = static_cast<int16_t>(i / 2 + 16 + 32 * (i & 1));
    }
    for (int row = 0; row < 2; ++row) rows[row] = _mm512_load_si512(index[row]);
  }
  void write(uint8_t* cells, const __m512i (&codes)[4]) const {
    const __m512i low = _mm512_or_si512(codes[0], _mm512_slli_epi16(codes[1], 8));
    const __m512i high = _mm512_or_si512(codes[2], _mm512_slli_epi16(codes[3], 8));
    for (int row = 0; row < 2; ++row)
      _mm512_storeu_si512(cells + row * kCellBytes, _mm512_permutex2var_epi16(low, rows[row], high));
  }
};

/// exponent_code of fp32 numbers.
struct FloatCodes {
  __m512i lowest, offset, special;

  explicit FloatCodes(int format_lowest)
      : lowest(_mm512_set1_epi32(format_lowest + 127)),
        offset(_mm512_set1_epi32(exponent_code_of(format_lowest).bias - 127)),
        special(_mm512_set1_epi32(exponent_code_of(format_lowest).special)) {}
  __m512i operator()(__m512 value) const {
    const __m512i magnitude = _mm512_slli_epi32(_mm512_castps_si512(value), 1);
    const __m512i field = _mm512_srli_epi32(magnitude, 24);
    const __m512i code =
        _mm512_maskz_add_epi32(_mm512_test_epi32_mask(magnitude, magnitude), _mm512_max_epi32(field, lowest), offset);
    return _mm512_mask_mov_epi32(code, _mm512_cmpeq_epi32_mask(field, _mm512_set1_epi32(255)), special);
  }
};

__m256i to_half(__m512 x) { return _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

/// fp32 -> bf16, kept as fp32 bits. No NaN: groups are tame here.
__m512i to_bf16(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i sum = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  return _mm512_and_si512(sum, _mm512_set1_epi32(static_cast<int>(0xFFFF0000u)));
}

template <Narrow narrow>
struct PairWriter {
  HalfCodes half_codes;
  FloatCodes float_codes;
  CellWriter cells;

  void operator()(int64_t k, __m512 first, __m512 second, float* value) const {
    [[maybe_unused]] __m256i a, b;
    if constexpr (narrow == Narrow::fp16) {
      a = to_half(first), b = to_half(second);
      first = _mm512_cvtph_ps(a), second = _mm512_cvtph_ps(b);
    } else if constexpr (narrow == Narrow::bf16) {
      first = _mm512_castsi512_ps(to_bf16(first)), second = _mm512_castsi512_ps(to_bf16(second));
    }
    _mm512_storeu_ps(value, first);
    _mm512_storeu_ps(value + kPanelWidth, second);
    if (cells.cells == nullptr) return;
    if constexpr (narrow == Narrow::fp16) {
      half_codes.write(cells, k, a, b);
    } else {
      cells(k, float_codes(first));
      cells(k + 1, float_codes(second));
    }
  }
};

template <Narrow narrow, SumRule sum>
void run(const GroupRule& rule, const CodeStretch& s) {
  const CodeLanes<sum> lanes(rule);
  const PairWriter<narrow> write{{}, FloatCodes(s.lowest_exponent), CellWriter(s.exponent, s.lowest_exponent)};
  int64_t k = 0;
  for (; k + 2 <= s.count; k += 2) {
    const __m512i bytes = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(s.codes + k * 8)));
    write(k, lanes.weights(bytes, 0), lanes.weights(bytes, 1), s.value + k * kPanelWidth);
  }
  if (k == s.count) return;
  // an odd last row (never where exponents are wanted)
  alignas(64) float spill[2 * kPanelWidth];
  const __m128i last = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(s.codes + k * 8));
  const __m512 weights = lanes.weights(_mm512_broadcast_i32x4(last), 0);
  const PairWriter<narrow> write_value{{}, FloatCodes(s.lowest_exponent), CellWriter({nullptr, 0}, s.lowest_exponent)};
  write_value(0, weights, weights, spill);
  _mm512_storeu_ps(s.value + k * kPanelWidth, _mm512_load_ps(spill));
}

/// Sixteen bytes of codes, two rows, in every quarter of a vector.
struct CodePairs {
  const uint8_t* codes;
  int64_t stride;
  __m512i operator()(int p, int64_t k) const {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + p * stride + k * 8)));
  }
};

/// half(p, k, row): row k + row of panel p, 16 halves.
template <class Halves>
void write_four(const SharedPanels& panels, const Halves& half) {
  const HalfCodes half_codes;
  const CellPacker cells;
  for (int64_t k = 0; k < panels.count; k += 2) {
    __m512i exponent[4];
    for (int p = 0; p < 4; ++p) {
      const __m256i first = half(p, k, 0), second = half(p, k, 1);
      float* const value = panels.value + p * panels.value_stride + k * kPanelWidth;
      _mm512_storeu_ps(value, _mm512_cvtph_ps(first));
      _mm512_storeu_ps(value + kPanelWidth, _mm512_cvtph_ps(second));
      exponent[p] = half_codes(first, second);
    }
    cells.write(panels.cells + k * kCellBytes, exponent);
  }
}

/// The cells of one row from fp32 bits of four panels' numbers, all zero or with exponents of fp16's normal range: the
/// exponent fields side by side, less what lies between field and code; a zero's saturates to 0.
__m512i window_cells(const __m512i (&bits)[4]) {
  constexpr int kPick = 0xCA;  // mask ? first : second
  const __m512i high = _mm512_ternarylogic_epi32(_mm512_set1_epi32(static_cast<int>(0xFF000000u)),
                                                 _mm512_slli_epi32(bits[3], 1), _mm512_srli_epi32(bits[2], 7), kPick);
  const __m512i low = _mm512_ternarylogic_epi32(_mm512_set1_epi32(0xFF00), _mm512_srli_epi32(bits[1], 15),
                                                _mm512_srli_epi32(bits[0], 23), kPick);
  const __m512i fields = _mm512_ternarylogic_epi32(_mm512_set1_epi32(static_cast<int>(0xFFFF0000u)), high, low, kPick);
  return _mm512_subs_epu8(fields, _mm512_set1_epi8(127 - kByteCode.bias));
}

/// number(p, k, row): row k + row of panel p, bits of 16 fp32 numbers that window_cells takes.
template <class Numbers>
void write_window(const SharedPanels& panels, const Numbers& number) {
  for (int64_t k = 0; k < panels.count; k += 2) {
    for (int row = 0; row < 2; ++row) {
      __m512i bits[4];
      for (int p = 0; p < 4; ++p) {
        bits[p] = number(p, k, row);
        _mm512_storeu_si512(panels.value + p * panels.value_stride + (k + row) * kPanelWidth, bits[p]);
      }
      _mm512_storeu_si512(panels.cells + (k + row) * kCellBytes, window_cells(bits));
    }
  }
}

/// Exponent codes of 32 bf16 numbers.
struct Bf16Codes {
  __m512i lowest = _mm512_set1_epi16(1), offset = _mm512_set1_epi16(kWordCode.bias - 127);

  __m512i operator()(__m512i words) const {
    const __m512i field = _mm512_srli_epi16(_mm512_slli_epi16(words, 1), 8);
    const __mmask32 nonzero = _mm512_test_epi16_mask(words, _mm512_set1_epi16(0x7FFF));
    const __m512i code = _mm512_maskz_add_epi16(nonzero, _mm512_max_epu16(field, lowest), offset);
    const __mmask32 special = _mm512_cmpeq_epi16_mask(field, _mm512_set1_epi16(255));
    return _mm512_mask_mov_epi16(code, special, _mm512_set1_epi16(kWordCode.special));
  }
};

/// number(p, k, row): row k + row of panel p, bits of 16 bf16 numbers as fp32.
template <class Numbers>
void write_two(const SharedPanels& panels, const Numbers& number) {
  const Bf16Codes codes;
  for (int64_t k = 0; k < panels.count; k += 2) {
    for (int row = 0; row < 2; ++row) {
      const __m512i first = number(0, k, row), second = number(1, k, row);
      float* const value = panels.value + (k + row) * kPanelWidth;
      _mm512_storeu_si512(value, first);
      _mm512_storeu_si512(value + panels.value_stride, second);
      const __m512i words = _mm512_or_si512(_mm512_srli_epi32(first, 16), second);
      _mm512_storeu_si512(panels.cells + (k + row) * kCellBytes, codes(words));
    }
  }
}

template <Narrow narrow>
void run_any(const GroupRule& rule, const CodeStretch& s) {
  switch (rule.sum) {
    case SumRule::common_unit: return run<narrow, SumRule::common_unit>(rule, s);
    case SumRule::exact: return run<narrow, SumRule::exact>(rule, s);
    case SumRule::to_odd: return run<narrow, SumRule::to_odd>(rule, s);
  }
}

}  // namespace

void dequantize_stretch(const GroupRule& rule, const CodeStretch& stretch) {
  switch (rule.narrow) {
    case Narrow::none: return run_any<Narrow::none>(rule, stretch);
    case Narrow::fp16: return run_any<Narrow::fp16>(rule, stretch);
    case Narrow::bf16: return run_any<Narrow::bf16>(rule, stretch);
  }
}

namespace {

/// bf16 numbers in fp16's range: see half_window.h.
template <SumRule sum, bool bf16>
void run_four(const GroupRule* rules, const CodePairs& source, const SharedPanels& panels) {
  using Lanes = CodeLanes<sum>;
  const Lanes lanes[4] = {Lanes(rules[0]), Lanes(rules[1]), Lanes(rules[2]), Lanes(rules[3])};
  const auto weights = [&](int p, int64_t k, int row) { return lanes[p].weights(source(p, k), row); };
  if constexpr (bf16) {
    write_window(panels, [&](int p, int64_t k, int row) { return to_bf16(weights(p, k, row)); });
  } else {
    write_four(panels, [&](int p, int64_t k, int row) { return to_half(weights(p, k, row)); });
  }
}

template <SumRule sum>
void run_two(const GroupRule* rules, const CodePairs& source, const SharedPanels& panels) {
  const CodeLanes<sum> first(rules[0]), second(rules[1]);
  write_two(panels, [&](int p, int64_t k, int row) {
    return to_bf16(p == 0 ? first.weights(source(p, k), row) : second.weights(source(p, k), row));
  });
}

template <SumRule sum>
void run_shared(const GroupRule* rules, const CodePairs& source, const SharedPanels& panels) {
  if (panels.panels == 2) return run_two<sum>(rules, source, panels);
  rules[0].narrow == Narrow::bf16 ? run_four<sum, true>(rules, source, panels)
                                  : run_four<sum, false>(rules, source, panels);
}

}  // namespace

void dequantize_shared(const GroupRule* rules, const uint8_t* codes, int64_t code_stride, const SharedPanels& panels) {
  const CodePairs source{codes, code_stride};
  SumRule sum = rules[0].sum;  // sums that are exact are so rounded to odd as well
  for (int p = 1; p < panels.panels; ++p) sum = rules[p].sum > sum ? rules[p].sum : sum;
  switch (sum) {
    case SumRule::common_unit: return run_shared<SumRule::common_unit>(rules, source, panels);
    case SumRule::exact: return run_shared<SumRule::exact>(rules, source, panels);
    case SumRule::to_odd: return run_shared<SumRule::to_odd>(rules, source, panels);
  }
}

void widen_shared(Format format, float factor, const uint16_t* bits, int64_t bit_stride, const SharedPanels& panels) {
  const auto row_bits = [&](int p, int64_t k, int row) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bits + p * bit_stride + (k + row) * kPanelWidth));
  };
  if (format == Format::fp16) return write_four(panels, row_bits);
  const auto number = [&](int p, int64_t k, int row) {
    return _mm512_slli_epi32(_mm512_cvtepu16_epi32(row_bits(p, k, row)), 16);
  };
  if (panels.panels == 2) return write_two(panels, number);
  const __m512 scale = _mm512_set1_ps(factor);
  write_window(panels, [&](int p, int64_t k, int row) {
    return _mm512_castps_si512(_mm512_mul_ps(_mm512_castsi512_ps(number(p, k, row)), scale));
  });
}

void widen_dense(Format format, const uint16_t* bits, int64_t k_count, float* value, const PanelCodes& exponent) {
  const bool half = format == Format::fp16;
  const int lowest = half ? -14 : -126;
  const HalfCodes half_codes;
  const FloatCodes float_codes(lowest);
  const CellWriter cells(exponent, lowest);
  const auto load = [&](int64_t k) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bits + k * kPanelWidth));
  };
  const auto widen = [&](__m256i row) {
    return half ? _mm512_cvtph_ps(row) : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(row), 16));
  };
  int64_t k = 0;
  for (; half && k + 2 <= k_count; k += 2) {
    const __m256i first = load(k), second = load(k + 1);
    _mm512_storeu_ps(value + k * kPanelWidth, widen(first));
    _mm512_storeu_ps(value + (k + 1) * kPanelWidth, widen(second));
    half_codes.write(cells, k, first, second);
  }
  for (; k < k_count; ++k) {
    const __m512 row = widen(load(k));
    _mm512_storeu_ps(value + k * kPanelWidth, row);
    cells(k, float_codes(row));
  }
}

}  // namespace qf::avx512
