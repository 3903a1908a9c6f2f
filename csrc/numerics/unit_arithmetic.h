// What a named GPU's instruction computes for rows of products: the oracle of fused_dot_add over every UnitMethod.
#pragma once
// nvcc: x[0] = qf::fp8_through_fp16({16, 25, qf::Rounding::fp32_toward_zero, -133, -14}, x, x + 32, 32, 0.0f);

#include <cstdint>

#include "base/rounded.h"
#include "numerics/device_profiles.h"

namespace qf {

/// fp8 `mma.sync` on Hopper and B200, 32 products: the operands become fp16, the products with k mod 4 in {0, 1} and
/// then those with k mod 4 in {2, 3} go through the fp16 unit, and c is added last, rounded to nearest (Khattak &
/// Mikaitis; facts 1.5). count <= 32; missing products count as zero.
QF_HD inline float fp8_through_fp16(const MatrixUnit& unit, const float* a, const float* b, int count, float c) {
  float h = 0.0f;
  for (int group = 0; group < 2; ++group) {
    float x[16], y[16];
    int filled = 0;
    for (int k = 0; k < count; ++k) {
      if ((k & 3) >> 1 != group) continue;
      x[filled] = a[k];
      y[filled++] = b[k];
    }
    h = fused_dot_add_step(unit, x, 1, y, 1, filled, h);
  }
  float sum = add_rn(h, c);  // fp16: exact enough that the second rounding is innocent (24 >= 2 * 11 + 2 bits)
  if (unit.rounding == Rounding::fp16_nearest_even && sum == sum) sum = round_to_half(sum);
  return sum == sum ? sum : bits_float(kCanonicalNan);
}

/// One row of products through a unit that is not exact_int32.
QF_HD inline float dot_add_row(UnitMethod method, const MatrixUnit& unit, const float* a, const float* b,
                               int64_t length, float c) {
  if (method == UnitMethod::fused) return fused_dot_add(unit, a, 1, b, 1, length, c);
  const int step = 2 * unit.products;
  for (int64_t k = 0; k < length; k += step) {
    const int64_t left = length - k;
    c = fp8_through_fp16(unit, a + k, b + k, static_cast<int>(left < step ? left : step), c);
  }
  return c;
}
/// The same for int8: exact, wrapping modulo 2^32.
QF_HD inline int32_t dot_add_row(const float* a, const float* b, int64_t length, int32_t c) {
  auto sum = static_cast<uint32_t>(c);
  for (int64_t k = 0; k < length; ++k) {
    sum += static_cast<uint32_t>(static_cast<int32_t>(a[k]) * static_cast<int32_t>(b[k]));
  }
  return static_cast<int32_t>(sum);
}

/// Throws Error unless the integers of a step can hold every sum of such a unit.
void check_unit(const MatrixUnit& unit);

/// Operands as fp32 numbers of the unit's formats, [count][length] each; c and result [count]. Steps run over k
/// ascending; a last step shorter than unit.step() counts as padded with zeros. tf32 operands are cut to 19 bits, as
/// the unit reads them.
void dot_add_rows(const DeviceUnit& unit, const float* a, const float* b, const float* c, int64_t count, int64_t length,
                  float* result);
/// The integer unit: exact, wrapping modulo 2^32.
void dot_add_rows(const float* a, const float* b, const int32_t* c, int64_t count, int64_t length, int32_t* result);

/// Index of the first value that the format cannot hold, or -1. NaN and Inf belong to every format that has them; tf32
/// reads any fp32. int8: whole numbers of -128 .. 127.
int64_t first_unrepresentable(InputFormat format, const float* values, int64_t count);

}  // namespace qf
