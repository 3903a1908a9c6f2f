#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include "numerics/chain_isa.h"

namespace qf {
namespace {

#include "numerics/chain_tile.h"

/// Lanes as plain arrays: what any compiler can vectorise, and the reference for the intrinsics.
struct Portable {
  static constexpr int lanes = 8;
  using Float = std::array<float, lanes>;
  using Int = std::array<int32_t, lanes>;
  static constexpr int kSharedRows = 1;

  template <class Out, class Function>
  static Out map(Function f) {
    Out out;
    for (int i = 0; i < lanes; ++i) out[i] = f(i);
    return out;
  }

  static Float load(const float* p) {
    return map<Float>([=](int i) { return p[i]; });
  }
  static void store(float* p, const Float& x) {
    for (int i = 0; i < lanes; ++i) p[i] = x[i];
  }
  static void store(int32_t* p, const Int& x) {
    for (int i = 0; i < lanes; ++i) p[i] = x[i];
  }
  static Int load_int(const uint8_t* p) {
    Int out;
    std::memcpy(out.data(), p, sizeof out);
    return out;
  }
  static Int splat(const uint32_t* p) { return set(static_cast<int32_t>(*p)); }
  static Float set(float x) {
    return map<Float>([=](int) { return x; });
  }
  static Int set(int32_t x) {
    return map<Int>([=](int) { return x; });
  }
  static Int add(const Int& a, const Int& b) {  // wraps, as the vector instructions do
    return map<Int>(
        [&](int i) { return static_cast<int32_t>(static_cast<uint32_t>(a[i]) + static_cast<uint32_t>(b[i])); });
  }
  static Int sub(const Int& a, const Int& b) {
    return map<Int>(
        [&](int i) { return static_cast<int32_t>(static_cast<uint32_t>(a[i]) - static_cast<uint32_t>(b[i])); });
  }
  static Int max_unsigned(const Int& a, const Int& b) {
    return map<Int>([&](int i) { return static_cast<uint32_t>(a[i]) > static_cast<uint32_t>(b[i]) ? a[i] : b[i]; });
  }
  static Int min_unsigned(const Int& a, const Int& b) {
    return map<Int>([&](int i) { return static_cast<uint32_t>(a[i]) < static_cast<uint32_t>(b[i]) ? a[i] : b[i]; });
  }
  static Float add(const Float& a, const Float& b) {
    return map<Float>([&](int i) { return a[i] + b[i]; });
  }
  static Float mul(const Float& a, const Float& b) {
    return map<Float>([&](int i) { return a[i] * b[i]; });
  }
  static Int truncate(const Float& x) {  // out of int32 (a lane that the oracle will redo): INT32_MIN, as on x86
    return map<Int>([&](int i) { return x[i] > -0x1p31f && x[i] < 0x1p31f ? static_cast<int32_t>(x[i]) : INT32_MIN; });
  }

  static Int shift_left(const Int& x, int count) {
    return map<Int>([&](int i) {
      const uint32_t bits = static_cast<uint32_t>(x[i]);
      return static_cast<int32_t>(count >= 0 ? bits << count : bits >> -count);
    });
  }
  static Int shift_right(const Int& x, int count) { return shift_left(x, -count); }
  static Int bits(const Float& x) {
    return map<Int>([&](int i) { return static_cast<int32_t>(float_bits(x[i])); });
  }
  static Float as_float(const Int& x) {
    return map<Float>([&](int i) { return bits_float(static_cast<uint32_t>(x[i])); });
  }
  static Int exponent_bits(const Int& x) {
    return map<Int>([&](int i) { return x[i] & 0x7F800000; });
  }

  static Int low_bits(const Int& x, int count) {
    return map<Int>([&](int i) { return x[i] & ((1 << count) - 1); });
  }

  /// The codes of a cell one by one: Kind is ByteCodes or WordCodes.
  template <class Kind>
  struct Codes : Kind {
    static constexpr int kBits = 8 * Kind::kBytes;
    template <class Function>
    static Int each(Function f) {  // f(vector lane, shift of the code)
      return map<Int>([&](int i) {
        uint32_t cell = 0;
        for (int shift = 0; shift < 32; shift += kBits) cell |= static_cast<uint32_t>(f(i, shift)) << shift;
        return static_cast<int32_t>(cell);
      });
    }
    static int code(int32_t cell, int shift) {
      return static_cast<int>(static_cast<uint32_t>(cell) >> shift) & Kind::kMask;
    }
    static Int max(const Int& a, const Int& b) {
      return each([&](int i, int shift) { return std::max(code(a[i], shift), code(b[i], shift)); });
    }
    static bool any_outside(const Int& x, int lowest, int highest) {
      bool found = false;
      for (const int32_t cell : x)
        for (int shift = 0; shift < 32; shift += kBits)
          found = found || code(cell, shift) < lowest || code(cell, shift) > highest;
      return found;
    }
    static Int exponents(const Int& sums, int floor) {
      return each(
          [&](int i, int shift) { return std::max(std::min(code(sums[i], shift) + Kind::kToField, 255), floor); });
    }
  };
  using Bytes = Codes<ByteCodes>;
  using Words = Codes<WordCodes>;

  static Int raise_nonzero(const Int& x, int32_t least) {
    return map<Int>([&](int i) { return x[i] == 0 ? 0 : std::max(x[i], least); });
  }
  static bool any_above(const Int& x, int32_t limit) {
    bool found = false;
    for (const int32_t value : x) found = found || static_cast<uint32_t>(value) > static_cast<uint32_t>(limit);
    return found;
  }
  static bool any_zero(const Int& x) { return std::find(std::begin(x), std::end(x), 0) != std::end(x); }
  static bool any_negative(const Int& x) {
    bool found = false;
    for (const int32_t value : x) found = found || value < 0;
    return found;
  }
  static Int or_sign_differs(const Int& before, const Int& low, const Int& high, const Int& sum) {
    return map<Int>([&](int i) { return before[i] | ((low[i] ^ sum[i]) & (high[i] ^ sum[i])); });
  }

  static Float to_float_toward_zero(const Int& x) {
    return map<Float>([&](int i) {
      const uint32_t magnitude = x[i] < 0 ? 0u - static_cast<uint32_t>(x[i]) : static_cast<uint32_t>(x[i]);
      const int drop = magnitude >> 24 ? 8 - __builtin_clz(magnitude) : 0;  // bits beyond 24
      const float cut = static_cast<float>(magnitude >> drop << drop);
      return x[i] < 0 ? -cut : cut;
    });
  }
  static Float to_float_sticky(const Int& x) {
    const Float cut = to_float_toward_zero(x);
    const Int back = truncate(cut);
    return map<Float>([&](int i) { return back[i] == x[i] ? cut[i] : bits_float(float_bits(cut[i]) | 1u); });
  }
  static Float round_half(const Float& x) {
    return map<Float>([&](int i) { return round_to_half(x[i]); });
  }
};

}  // namespace

bool chain_portable(const ChainArgs& args) { return run_vectorised<Portable>(args); }

}  // namespace qf
