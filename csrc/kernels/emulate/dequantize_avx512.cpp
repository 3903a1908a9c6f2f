#include <immintrin.h>

#include "kernels/emulate/dequantize.h"

namespace qf::avx512 {
namespace {

// A code becomes a float without shifts: its nibble is put under the exponent of a power of two, so that lane j holds
// offset + q exactly. Columns 0..7 (low nibbles, byte 2 of a lane): 128 + q; columns 8..15 (high nibbles, byte 1):
// 2048 + q. The offset goes away in the addend: (q - base) * scale + add = (offset + q) * scale + (add - (offset +
// base) * scale), all of it exact in fp32 (at most 12 + 11 bits). Where the sum is to be rounded to odd, the offset
// goes away first: q - base = (offset + q) - (offset + base).
__m512 lanes(float low, float high) { return _mm512_mask_mov_ps(_mm512_set1_ps(low), 0xFF00, _mm512_set1_ps(high)); }
__m512i lanes(int low, int high) {
  return _mm512_mask_mov_epi32(_mm512_set1_epi32(low), 0xFF00, _mm512_set1_epi32(high));
}

template <bool odd>
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
    if constexpr (!odd) addend = _mm512_sub_ps(addend, _mm512_mul_ps(base, scale));
  }
  /// Row 0 or 1 of the 16 bytes that every quarter of `bytes` holds.
  __m512 weights(__m512i bytes, int row) const {
    const __m512i placed = _mm512_shuffle_epi8(bytes, spread[row]);
    const __m512i magic_code = _mm512_ternarylogic_epi32(placed, nibble, magic, 0xEA);  // (placed & nibble) | magic
    const __m512 offset_code = _mm512_castsi512_ps(magic_code);
    if constexpr (odd) return to_odd(_mm512_sub_ps(offset_code, base));
    return _mm512_fmadd_ps(offset_code, scale, addend);
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

/// Exponents of fp16 numbers, 32 at a time: a table of the exponent field; zeros apart from subnormals.
struct HalfExponents {
  __m512i table, pairs;

  HalfExponents() {
    alignas(64) int16_t fields[32], order[32];
    for (int i = 0; i < 32; ++i) {
      fields[i] = static_cast<int16_t>(i == 0 ? -14 : (i == 31 ? kSpecialExponent : i - 15));
      order[i] = static_cast<int16_t>(i / 2 + 16 * (i & 1));
    }
    table = _mm512_load_si512(fields);
    pairs = _mm512_load_si512(order);
  }
  /// bits: row k in the lower half, row k + 1 in the upper; result in pairs of k.
  __m512i operator()(__m512i bits) const {
    const __m512i paired = _mm512_permutexvar_epi16(pairs, bits);
    const __mmask32 nonzero = _mm512_test_epi16_mask(paired, _mm512_set1_epi16(0x7FFF));
    return _mm512_mask_permutexvar_epi16(_mm512_set1_epi16(kZeroExponent), nonzero, _mm512_srli_epi16(paired, 10),
                                         table);
  }
};

/// Exponents of bf16 numbers that already lie in pairs of k.
__m512i bf16_exponents(__m512i pairs) {
  const __m512i field = _mm512_srli_epi16(_mm512_slli_epi16(pairs, 1), 8);
  __m512i e = _mm512_sub_epi16(_mm512_max_epi16(field, _mm512_set1_epi16(1)), _mm512_set1_epi16(127));
  const __mmask32 special = _mm512_cmpeq_epi16_mask(field, _mm512_set1_epi16(255));
  e = _mm512_mask_mov_epi16(e, special, _mm512_set1_epi16(kSpecialExponent));
  const __mmask32 nonzero = _mm512_test_epi16_mask(pairs, _mm512_set1_epi16(0x7FFF));
  return _mm512_mask_mov_epi16(_mm512_set1_epi16(kZeroExponent), nonzero, e);
}

/// fp32 -> bf16, kept as fp32 bits. No NaN: groups are tame here.
__m512i to_bf16(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i sum = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
  return _mm512_and_si512(sum, _mm512_set1_epi32(static_cast<int>(0xFFFF0000u)));
}

/// Exponents of finite fp32 numbers, two rows into pairs.
__m512i float_exponents(__m512 first, __m512 second, __m512i lowest) {
  const auto one = [&](__m512 value) {
    const __m512i magnitude = _mm512_slli_epi32(_mm512_castps_si512(value), 1);
    const __m512i e =
        _mm512_max_epi32(_mm512_sub_epi32(_mm512_srli_epi32(magnitude, 24), _mm512_set1_epi32(127)), lowest);
    const __mmask16 nonzero = _mm512_test_epi32_mask(magnitude, magnitude);
    return _mm512_mask_mov_epi32(_mm512_set1_epi32(kZeroExponent), nonzero, e);
  };
  return _mm512_mask_blend_epi16(0xAAAAAAAAu, one(first), _mm512_slli_epi32(one(second), 16));
}

template <Narrow narrow>
struct PairWriter {
  HalfExponents half_exponents;
  __m512i lowest;

  void operator()(__m512 first, __m512 second, float* value, int16_t* exponent) const {
    __m512i e;
    if constexpr (narrow == Narrow::fp16) {
      const __m256i a = _mm512_cvtps_ph(first, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      const __m256i b = _mm512_cvtps_ph(second, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      first = _mm512_cvtph_ps(a), second = _mm512_cvtph_ps(b);
      e = half_exponents(_mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1));
    } else if constexpr (narrow == Narrow::bf16) {
      const __m512i a = to_bf16(first), b = to_bf16(second);
      first = _mm512_castsi512_ps(a), second = _mm512_castsi512_ps(b);
      e = bf16_exponents(_mm512_or_si512(_mm512_srli_epi32(a, 16), b));
    } else {
      e = float_exponents(first, second, lowest);
    }
    _mm512_storeu_ps(value, first);
    _mm512_storeu_ps(value + kPanelWidth, second);
    if (exponent != nullptr) _mm512_storeu_si512(exponent, e);
  }
};

template <Narrow narrow, bool odd>
void run(const GroupRule& rule, const CodeStretch& s) {
  const CodeLanes<odd> lanes(rule);
  const PairWriter<narrow> write{{}, _mm512_set1_epi32(s.lowest_exponent)};
  int64_t k = 0;
  for (; k + 2 <= s.count; k += 2) {
    const __m512i bytes = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(s.codes + k * 8)));
    write(lanes.weights(bytes, 0), lanes.weights(bytes, 1), s.value + k * kPanelWidth,
          s.exponent == nullptr ? nullptr : s.exponent + k * kPanelWidth);
  }
  if (k == s.count) return;
  // an odd last row (never where exponents are wanted)
  alignas(64) float spill[2 * kPanelWidth];
  const __m128i last = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(s.codes + k * 8));
  const __m512 weights = lanes.weights(_mm512_broadcast_i32x4(last), 0);
  write(weights, weights, spill, nullptr);
  _mm512_storeu_ps(s.value + k * kPanelWidth, _mm512_load_ps(spill));
}

template <Narrow narrow>
void run_any(const GroupRule& rule, const CodeStretch& s) {
  return rule.odd ? run<narrow, true>(rule, s) : run<narrow, false>(rule, s);
}

}  // namespace

void dequantize_stretch(const GroupRule& rule, const CodeStretch& stretch) {
  switch (rule.narrow) {
    case Narrow::none: return run_any<Narrow::none>(rule, stretch);
    case Narrow::fp16: return run_any<Narrow::fp16>(rule, stretch);
    case Narrow::bf16: return run_any<Narrow::bf16>(rule, stretch);
  }
}

void widen_dense(Format format, const uint16_t* bits, int64_t k_count, float* value, int16_t* exponent) {
  const HalfExponents half_exponents;
  const auto row = [&](__m256i half) {
    if (format == Format::fp16) return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
  };
  for (int64_t k = 0; k < k_count; k += 2) {
    const bool pair = k + 1 < k_count;
    const uint16_t* at = bits + k * kPanelWidth;
    const __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
    const __m256i second =
        pair ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at + kPanelWidth)) : _mm256_setzero_si256();
    const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
    _mm512_storeu_ps(value + k * kPanelWidth, row(first));
    if (pair) _mm512_storeu_ps(value + (k + 1) * kPanelWidth, row(second));
    const __m512i e = format == Format::fp16 ? half_exponents(both)
                                             : bf16_exponents(_mm512_permutexvar_epi16(half_exponents.pairs, both));
    _mm512_storeu_si512(exponent + k * kPanelWidth, e);
  }
}

}  // namespace qf::avx512
