#include <algorithm>
#include <array>
#include <cstdint>

#include "numerics/chain_isa.h"

namespace qf {
namespace {

#include "numerics/chain_tile.h"

/// Lanes as plain arrays: what any compiler can vectorise, and the reference for the intrinsics.
struct Portable {
  static constexpr int lanes = 8;
  using Float = std::array<float, lanes>;
  using Int = std::array<int32_t, lanes>;
  using Mask = std::array<bool, lanes>;

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
  static Int load_int(const int16_t* p) {
    return map<Int>([=](int i) { return pair(p[2 * i], p[2 * i + 1]); });
  }
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
  static Float add(const Float& a, const Float& b) {
    return map<Float>([&](int i) { return a[i] + b[i]; });
  }
  static Float mul(const Float& a, const Float& b) {
    return map<Float>([&](int i) { return a[i] * b[i]; });
  }
  static Int truncate(const Float& x) {  // out of int32 (a lane that the oracle will redo): INT32_MIN, as on x86
    return map<Int>([&](int i) { return x[i] > -0x1p31f && x[i] < 0x1p31f ? static_cast<int32_t>(x[i]) : INT32_MIN; });
  }

  // exponents, two int16 per lane
  static int32_t pair(int low, int high) {
    return static_cast<int32_t>((static_cast<uint32_t>(high) << 16) | (static_cast<uint32_t>(low) & 0xFFFFu));
  }
  static int low(int32_t x) { return static_cast<int16_t>(x & 0xFFFF); }
  static int high(int32_t x) { return x >> 16; }
  static Int set16(int x) { return set(pair(x, x)); }
  static Int set_pair(const int16_t* p) { return set(pair(p[0], p[1])); }
  static Int add16(const Int& a, const Int& b) {
    return map<Int>([&](int i) { return pair(low(a[i]) + low(b[i]), high(a[i]) + high(b[i])); });
  }
  static Int max16(const Int& a, const Int& b) {
    return map<Int>([&](int i) { return pair(std::max(low(a[i]), low(b[i])), std::max(high(a[i]), high(b[i]))); });
  }
  static Int min16(const Int& a, const Int& b) {
    return map<Int>([&](int i) { return pair(std::min(low(a[i]), low(b[i])), std::min(high(a[i]), high(b[i]))); });
  }
  static Int swap16(const Int& x) {
    return map<Int>([&](int i) { return pair(high(x[i]), low(x[i])); });
  }
  static Int shift_to_field(const Int& x) {
    return map<Int>([&](int i) { return static_cast<int32_t>(static_cast<uint32_t>(x[i]) << 23); });
  }
  static Int exponent_field(const Float& x) {
    return map<Int>([&](int i) { return static_cast<int32_t>(float_bits(x[i]) & 0x7F800000u); });
  }
  static Float as_float(const Int& x) {
    return map<Float>([&](int i) { return bits_float(static_cast<uint32_t>(x[i])); });
  }

  static Mask outside_field(const Int& x, int lowest, int highest) {
    return map<Mask>([&](int i) { return x[i] < lowest << 23 || x[i] > highest << 23; });
  }
  static Mask all_zero(const Int& products, const Float& accumulator) {
    return map<Mask>([&](int i) {
      return std::max(low(products[i]), high(products[i])) < kZeroExponent / 2 && accumulator[i] == 0.0f;
    });
  }
  static Mask and_not(const Mask& a, const Mask& b) {
    return map<Mask>([&](int i) { return a[i] && !b[i]; });
  }
  static Mask mask_or(const Mask& a, const Mask& b) {
    return map<Mask>([&](int i) { return a[i] || b[i]; });
  }
  static bool any(const Mask& mask) {
    bool found = false;
    for (bool bit : mask) found = found || bit;
    return found;
  }
  static Mask overflows(const Int& low, const Int& high, const Int& sum) {
    return map<Mask>([&](int i) { return ((low[i] ^ sum[i]) & (high[i] ^ sum[i])) < 0; });
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

  static int tile_rows(int left) { return left >= 2 ? 2 : left; }
  template <int L, Finish kFinish>
  static int dispatch(int rows, int /*vectors*/, const TileArgs& tile) {
    if (rows == 2) {
      run_tile<Portable, L, kFinish, 2, 1>(tile);
    } else {
      run_tile<Portable, L, kFinish, 1, 1>(tile);
    }
    return 1;
  }
};

}  // namespace

bool chain_portable(const ChainArgs& args) { return run_vectorised<Portable>(args); }

}  // namespace qf
