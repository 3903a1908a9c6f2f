#include "numerics/unit_arithmetic.h"

#include <vector>

#include "base/error.h"
#include "base/formats.h"

namespace qf {
namespace {

bool representable(InputFormat format, float x) {
  const bool nan = x != x, finite = detail::is_finite(x);
  switch (format) {
    case InputFormat::fp16: return nan || round_to_half(x) == x;
    case InputFormat::bf16: return nan || round_to_bf16(x) == x;
    case InputFormat::tf32: return true;
    case InputFormat::e4m3: return nan || (finite && e4m3_to_float(float_to_e4m3(x)) == x);
    case InputFormat::e5m2: return nan || e5m2_to_float(float_to_e5m2(x)) == x;
    case InputFormat::int8:
      return finite && x >= -128.0f && x <= 127.0f && static_cast<float>(static_cast<int>(x)) == x;
  }
  return false;
}

}  // namespace

void check_unit(const MatrixUnit& unit) {
  const auto within = [](const char* name, int value, int low, int high) {
    require(value >= low && value <= high, name, ": expected ", low, " .. ", high, ", found ", value);
  };
  within("products", unit.products, 1, 64);
  within("fraction_bits", unit.fraction_bits, 1, 40);
  within("zero_exponent", unit.zero_exponent, -1000, 100);
  within("input_exponent", unit.input_exponent, -1000, 100);
}

void dot_add_rows(const DeviceUnit& unit, const float* a, const float* b, const float* c, int64_t count, int64_t length,
                  float* result) {
  require(unit.method != UnitMethod::exact_int32, "the integer unit takes integer accumulators");
  std::vector<float> cut_a, cut_b;
  for (int64_t row = 0; row < count; ++row, a += length, b += length) {
    const float *x = a, *y = b;
    if (unit.input == InputFormat::tf32) {
      cut_a.assign(a, a + length);
      cut_b.assign(b, b + length);
      for (float& value : cut_a) value = truncate_to_tf32(value);
      for (float& value : cut_b) value = truncate_to_tf32(value);
      x = cut_a.data();
      y = cut_b.data();
    }
    result[row] = dot_add_row(unit.method, unit.unit, x, y, length, c[row]);
  }
}

void dot_add_rows(const float* a, const float* b, const int32_t* c, int64_t count, int64_t length, int32_t* result) {
  for (int64_t row = 0; row < count; ++row, a += length, b += length) result[row] = dot_add_row(a, b, length, c[row]);
}

int64_t first_unrepresentable(InputFormat format, const float* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    if (!representable(format, values[i])) return i;
  }
  return -1;
}

}  // namespace qf
