#include "numerics/special_function_unit.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace qf {
namespace {

constexpr size_t kEntries = size_t{1} << 23;
constexpr int64_t kPieceLength = 1 << 16;
constexpr int kPieceScale = 38;
constexpr uint32_t kCurveBase = 0x3F000000u;
constexpr size_t kNearest = 1 << 19;

/// The least-squares quadratic through one piece, moved up as far as no entry is exceeded. What a GPU answered then
/// lies on it or one above; fit_piece says no when it does not.
bool fit_piece(const uint32_t* bits, SfuPiece& piece, uint64_t* carries) {
  const double n = static_cast<double>(kPieceLength);
  double sum = 0, sum_x = 0, sum_xx = 0, square_x = 0, square_xx = 0;
  const double mean_xx = (n * n - 1) / (12 * n * n);  // of x * x over the piece, x = (d - (n - 1) / 2) / n
  for (int64_t d = 0; d < kPieceLength; ++d) {
    const double x = (static_cast<double>(d) - (n - 1) / 2) / n, xx = x * x - mean_xx;
    const double t = static_cast<double>(bits[d] - kCurveBase);
    sum += t;
    sum_x += t * x;
    sum_xx += t * xx;
    square_x += x * x;
    square_xx += xx * xx;
  }
  const double b = sum_x / square_x, c = sum_xx / square_xx;
  const double scale = static_cast<double>(int64_t{1} << kPieceScale);
  piece.c2 = std::llround(c / (n * n) * scale);
  piece.c1 = std::llround((b / n - c * (n - 1) / (n * n)) * scale);
  const auto rise = [&piece](int64_t d) { return d * (piece.c1 + d * piece.c2); };
  piece.c0 = std::numeric_limits<int64_t>::max();
  for (int64_t d = 0; d < kPieceLength; ++d) {
    const int64_t above = (static_cast<int64_t>(bits[d] - kCurveBase) + 1) << kPieceScale;
    piece.c0 = std::min(piece.c0, above - 1 - rise(d));
  }
  for (int64_t d = 0; d < kPieceLength; ++d) {
    const int64_t carry = static_cast<int64_t>(bits[d] - kCurveBase) - ((piece.c0 + rise(d)) >> kPieceScale);
    if (carry != 0 && carry != 1) return false;
    carries[d >> 6] |= static_cast<uint64_t>(carry) << (d & 63);
  }
  return true;
}

/// The table whose first differences come as four byte planes; magnitudes only.
std::vector<uint32_t> from_planes(std::span<const uint8_t> planes, uint32_t first, const char* name) {
  const size_t count = kEntries - 1;
  require(planes.size() == 4 * count, name, ": expected ", 4 * count, " bytes of differences, found ", planes.size());
  std::vector<uint32_t> table(kEntries);
  table[0] = first;
  for (size_t i = 0; i < count; ++i) {
    uint32_t difference = 0;
    for (size_t plane = 0; plane < 4; ++plane)
      difference |= static_cast<uint32_t>(planes[plane * count + i]) << (8 * plane);
    table[i + 1] = table[i] + difference;
  }
  for (uint32_t& entry : table) entry &= 0x7FFFFFFFu;
  return table;
}

}  // namespace

SfuCurve SfuTables::Curve::fill(std::span<const int8_t> differences, uint32_t first, const char* name) {
  require(differences.size() == kEntries - 1, name, ": expected ", kEntries - 1, " differences, found ",
          differences.size());
  pieces.resize(kEntries / kPieceLength);
  carries.assign(kEntries / 64, 0);
  std::vector<uint32_t> bits(kPieceLength);
  uint32_t next = first;
  for (size_t piece = 0; piece < pieces.size(); ++piece) {
    const size_t begin = piece * kPieceLength;
    for (size_t d = 0; d < bits.size(); ++d) {
      require(next >= kCurveBase && next < kCurveBase + 2 * kEntries, name, ": entry ", begin + d,
              " is outside [1/2, 2)");
      bits[d] = next;
      if (begin + d + 1 < kEntries) next += static_cast<uint32_t>(static_cast<int32_t>(differences[begin + d]));
    }
    require(fit_piece(bits.data(), pieces[piece], carries.data() + begin / 64), name, ": piece ", piece, " of ",
            pieces.size(), " is no quadratic within one unit");
  }
  return {pieces.data(), carries.data()};
}

SfuLogCurve SfuTables::LogCurve::fill(std::vector<uint32_t> magnitudes, const char* name) {
  nearest.assign(magnitudes.begin(), magnitudes.begin() + kNearest);
  first.resize(kEntries / 64 + 1);
  for (size_t block = 0; block < kEntries / 64; ++block) first[block] = magnitudes[block * 64];
  first.back() = magnitudes.back();
  residual.assign(kEntries, 0);
  const SfuLogCurve curve{nearest.data(), first.data(), residual.data()};
  for (size_t i = kNearest; i < kEntries; ++i) {
    const int64_t difference = static_cast<int64_t>(magnitudes[i]) - curve.at(static_cast<uint32_t>(i));
    require(difference >= -128 && difference <= 127, name, ": entry ", i, " is ", difference, " units off its line");
    residual[i] = static_cast<int8_t>(difference);
  }
  return curve;
}

SfuTables::SfuTables(const SfuDifferences& data) {
  auto curves = std::make_shared<Curves>();
  view_.ex2_curve = curves->ex2.fill(data.ex2, 0x3F800000u, "ex2");
  view_.rcp_curve = curves->rcp.fill(data.rcp, 0x3F800000u, "rcp");
  require(data.rsqrt.size() % 2 == 0, "rsqrt: expected two rows of differences, found ", data.rsqrt.size(), " entries");
  const size_t half = data.rsqrt.size() / 2;
  view_.rsqrt_even = curves->rsqrt_even.fill(data.rsqrt.first(half), 0x3F800000u, "rsqrt of [1, 2)");
  view_.rsqrt_odd = curves->rsqrt_odd.fill(data.rsqrt.last(half), 1060439282u, "rsqrt of [2, 4)");
  curves_ = std::move(curves);
  if (data.lg2.empty() && data.lg2_below.empty()) return;
  add_lg2(SfuLogRange::above, data.lg2);
  add_lg2(SfuLogRange::below, data.lg2_below);
}

SfuTables::SfuTables(const SfuTables& others, SfuLogRange range, std::span<const uint8_t> planes)
    : curves_(others.curves_), lg2_above_(others.lg2_above_), lg2_below_(others.lg2_below_), view_(others.view_) {
  add_lg2(range, planes);
}

void SfuTables::add_lg2(SfuLogRange range, std::span<const uint8_t> planes) {
  auto curve = std::make_shared<LogCurve>();
  if (range == SfuLogRange::above) {
    view_.lg2_above = curve->fill(from_planes(planes, 0u, "lg2"), "lg2");
    lg2_above_ = std::move(curve);
    return;
  }
  std::vector<uint32_t> below = from_planes(planes, 0xBF7FFFFEu, "lg2_below1");
  std::reverse(below.begin(), below.end());
  view_.lg2_below = curve->fill(std::move(below), "lg2_below1");
  lg2_below_ = std::move(curve);
}

void SfuTables::ex2(const float* x, float* y, int64_t count) const {
  const SfuView sfu = view_;
  for (int64_t i = 0; i < count; ++i) y[i] = sfu.ex2(x[i]);
}

void SfuTables::rcp(const float* x, float* y, int64_t count) const {
  const SfuView sfu = view_;
  for (int64_t i = 0; i < count; ++i) y[i] = sfu.rcp(x[i]);
}

void SfuTables::rsqrt(const float* x, float* y, int64_t count) const {
  const SfuView sfu = view_;
  for (int64_t i = 0; i < count; ++i) y[i] = sfu.rsqrt(x[i]);
}

void SfuTables::lg2(const float* x, float* y, int64_t count) const {
  require(has_lg2(), "these tables were made without lg2");
  const SfuView sfu = view_;
  for (int64_t i = 0; i < count; ++i) y[i] = sfu.lg2(x[i]);
}

int64_t SfuTables::bytes() const {
  size_t total = 0;
  for (const Curve* curve : {&curves_->ex2, &curves_->rcp, &curves_->rsqrt_even, &curves_->rsqrt_odd}) {
    total += curve->pieces.size() * sizeof(SfuPiece) + curve->carries.size() * sizeof(uint64_t);
  }
  for (const LogCurve* curve : {lg2_above_.get(), lg2_below_.get()}) {
    if (curve != nullptr)
      total += (curve->nearest.size() + curve->first.size()) * sizeof(uint32_t) + curve->residual.size();
  }
  return static_cast<int64_t>(total);
}

}  // namespace qf
