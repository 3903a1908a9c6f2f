// The special-function unit (MUFU): ex2, rcp, rsqrt and lg2 `.approx.ftz.f32`, for every fp32 input, bit for bit.
//
// The unit is a table of quadratic pieces whose coefficients nobody has published, so we keep what a GPU answered: the
// whole tables read off an H200 (data/README.md; A100 = H200 is an assumption for ex2). 2^23 results fit a quadratic
// per 2^16 entries up to one unit, so a table is 128 pieces in 64-bit integers and one bit per entry: 1 MB instead of
// 32 MB, integer code only, the same on host and device.
//
// Special values: PTX ISA 9.0, instructions ex2, rcp, rsqrt, lg2 with .ftz (subnormal inputs and results become zeros
// that keep their sign). A NaN result is 0x7FFFFFFF.
#pragma once
// nvcc: x[0] = sfu.ex2(x[1]) + sfu.rcp(x[2]) + sfu.rsqrt(x[3]) + sfu.lg2(x[4]);

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/bits.h"

namespace qf {

/// One piece: floor((c0 + c1 d + c2 d^2) / 2^38), d = low 16 bits of the entry's index.
struct SfuPiece {
  int64_t c0, c1, c2;
};

/// A monotone table of 2^23 results in [1/2, 2): bits = 0x3F000000 + piece + carry.
struct SfuCurve {
  const SfuPiece* pieces;   // [128]
  const uint64_t* carries;  // [2^17], bit i of the table at word i / 64, bit i % 64

  QF_HD_INLINE uint32_t at(uint32_t index) const {
    const SfuPiece& p = pieces[index >> 16];
    const int64_t d = index & 0xFFFFu;
    const uint32_t base = static_cast<uint32_t>((p.c0 + d * (p.c1 + d * p.c2)) >> 38);
    return 0x3F000000u + base + static_cast<uint32_t>((carries[index >> 6] >> (index & 63u)) & 1u);
  }
};

/// lg2 on one binade next to 1, by distance from 1: magnitudes, whose bits spread too much for a piece. Blocks of 64
/// entries on a line through their first entries, plus a signed byte; the first 2^19 entries as they are (steep, and
/// broken at binades).
struct SfuLogCurve {
  const uint32_t* nearest;  // [2^19]
  const uint32_t* first;    // [2^17 + 1]
  const int8_t* residual;   // [2^23]

  QF_HD_INLINE uint32_t at(uint32_t index) const {
    if (index < (1u << 19)) return nearest[index];
    const uint32_t block = index >> 6;
    const uint32_t rise = first[block + 1] - first[block];  // tables of magnitudes rise with the distance from 1
    return first[block] + ((rise * (index & 63u)) >> 6) + static_cast<uint32_t>(static_cast<int32_t>(residual[index]));
  }
};

/// Plain pointers, for host loops and kernels. lg2's may be null: see SfuTables.
struct SfuView {
  SfuCurve ex2_curve, rcp_curve, rsqrt_even, rsqrt_odd;
  SfuLogCurve lg2_above, lg2_below;  // [1, 2): index = fraction; [1/2, 1): index = 2^23 - 1 - fraction

  bool has_lg2() const { return lg2_above.first != nullptr && lg2_below.first != nullptr; }
  QF_HD_INLINE float ex2(float x) const;
  QF_HD_INLINE float rcp(float x) const;
  QF_HD_INLINE float rsqrt(float x) const;
  /// Confirmed for [1/2, 2^17); outside by the same rule (exact sum cut toward zero), which no recording of ours
  /// covers.
  QF_HD_INLINE float lg2(float x) const;
};

/// ex2 for x in [-252, 128), without the checks of SfuView::ex2 (softmax calls it millions of times).
QF_HD_INLINE float sfu_ex2_finite(const SfuCurve& curve, float x) {
  // v = floor(x * 2^23) for x >= 0; below zero the one's complement of floor(|x| * 2^23), except for whole numbers
  const int32_t t = static_cast<int32_t>(x * 0x1p23f);
  const int32_t v = t - static_cast<int32_t>(t < 0 && (t & 0x7FFFFF) != 0);
  const int32_t exponent = v >> 23;
  const uint32_t bits = curve.at(static_cast<uint32_t>(v) & 0x7FFFFFu);
  const int32_t field = static_cast<int32_t>(bits >> 23) + exponent;
  return field <= 0 ? 0.0f : bits_float(bits + (static_cast<uint32_t>(exponent) << 23));
}

QF_HD_INLINE float SfuView::ex2(float x) const {
  if (x >= -252.0f && x < 128.0f) return sfu_ex2_finite(ex2_curve, x);
  if (x != x) return bits_float(kCanonicalNan);
  return x < 0.0f ? 0.0f : bits_float(0x7F800000u);
}

QF_HD_INLINE float SfuView::rcp(float x) const {
  const uint32_t bits = float_bits(x), sign = bits & 0x80000000u, magnitude = bits & 0x7FFFFFFFu;
  if (magnitude < 0x00800000u) return bits_float(sign | 0x7F800000u);
  if (magnitude >= 0x7F800000u) return bits_float(magnitude == 0x7F800000u ? sign : kCanonicalNan);
  const int32_t exponent = static_cast<int32_t>(magnitude >> 23) - 127;
  const int32_t result = static_cast<int32_t>(rcp_curve.at(magnitude & 0x7FFFFFu)) - exponent * (1 << 23);
  return bits_float(sign | (result < 0x00800000 ? 0u : static_cast<uint32_t>(result)));
}

QF_HD_INLINE float SfuView::rsqrt(float x) const {
  const uint32_t bits = float_bits(x);
  if ((bits & 0x7FFFFFFFu) < 0x00800000u) return bits_float((bits & 0x80000000u) | 0x7F800000u);
  if (bits >= 0x7F800000u)
    return bits_float(bits == 0x7F800000u ? 0u : kCanonicalNan);  // +Inf; NaN and every negative number
  const int32_t exponent = static_cast<int32_t>(bits >> 23) - 127;
  const SfuCurve& curve = exponent & 1 ? rsqrt_odd : rsqrt_even;
  return bits_float(curve.at(bits & 0x7FFFFFu) - static_cast<uint32_t>((exponent >> 1) * (1 << 23)));
}

/// whole + part cut toward zero to fp32, both >= 0, whole < 128.
QF_HD_INLINE float sfu_sum_toward_zero(int whole, float part) {
  const double sum = static_cast<double>(whole) + static_cast<double>(part);  // exact: part has no bit below 2^-45
  uint64_t bits;
  memcpy(&bits, &sum, sizeof bits);
  bits &= ~((uint64_t{1} << 29) - 1);
  double cut;
  memcpy(&cut, &bits, sizeof cut);
  return static_cast<float>(cut);
}

QF_HD_INLINE float SfuView::lg2(float x) const {
  const uint32_t bits = float_bits(x);
  if ((bits & 0x7FFFFFFFu) < 0x00800000u) return bits_float(0xFF800000u);
  if (bits >= 0x7F800000u) return bits_float(bits == 0x7F800000u ? bits : kCanonicalNan);
  const int exponent = static_cast<int>(bits >> 23) - 127;
  const uint32_t fraction = bits & 0x7FFFFFu;
  if (exponent >= 0) return sfu_sum_toward_zero(exponent, bits_float(lg2_above.at(fraction)));
  return -sfu_sum_toward_zero(-1 - exponent, bits_float(lg2_below.at(0x7FFFFFu - fraction)));
}

/// First differences of the tables, as data/ ships them.
struct SfuDifferences {
  std::span<const int8_t> ex2;         // [2^23 - 1], ex2 of f * 2^-23
  std::span<const int8_t> rcp;         // [2^23 - 1], rcp of [1, 2)
  std::span<const int8_t> rsqrt;       // [2][2^23 - 1], rsqrt of [1, 2) and of [2, 4)
  std::span<const uint8_t> lg2;        // byte planes of int32 [4][2^23 - 1], lg2 of [1, 2); may be empty
  std::span<const uint8_t> lg2_below;  // the same, lg2 of [1/2, 1)
};

/// The binades next to 1 that have a table of lg2 each: [1/2, 1) and [1, 2).
enum class SfuLogRange : uint8_t { below, above };

/// Owns the tables (4 MB; 26 MB with lg2, which only split attention needs). Built once, shared by const reference.
class SfuTables {
 public:
  /// Throws Error when a table has the wrong size or does not fit its compact form.
  explicit SfuTables(const SfuDifferences& data);
  /// The tables of `others`, shared with it, and lg2 on one more binade.
  SfuTables(const SfuTables& others, SfuLogRange range, std::span<const uint8_t> planes);
  SfuTables(const SfuTables&) = delete;
  SfuTables& operator=(const SfuTables&) = delete;

  const SfuView& view() const { return view_; }
  bool has_lg2() const { return view_.has_lg2(); }
  int64_t bytes() const;

  float ex2(float x) const { return view_.ex2(x); }
  float rcp(float x) const { return view_.rcp(x); }
  float rsqrt(float x) const { return view_.rsqrt(x); }
  float lg2(float x) const { return view_.lg2(x); }

  /// Rows: y[i] of x[i]; y may be x.
  void ex2(const float* x, float* y, int64_t count) const;
  void rcp(const float* x, float* y, int64_t count) const;
  void rsqrt(const float* x, float* y, int64_t count) const;
  void lg2(const float* x, float* y, int64_t count) const;

 private:
  struct Curve {
    std::vector<SfuPiece> pieces;
    std::vector<uint64_t> carries;
    SfuCurve fill(std::span<const int8_t> differences, uint32_t first, const char* name);
  };
  struct LogCurve {
    std::vector<uint32_t> nearest, first;
    std::vector<int8_t> residual;
    SfuLogCurve fill(std::vector<uint32_t> magnitudes, const char* name);
  };
  void add_lg2(SfuLogRange range, std::span<const uint8_t> planes);

  struct Curves {
    Curve ex2, rcp, rsqrt_even, rsqrt_odd;
  };
  std::shared_ptr<const Curves> curves_;
  std::shared_ptr<const LogCurve> lg2_above_, lg2_below_;
  SfuView view_{};
};

}  // namespace qf
