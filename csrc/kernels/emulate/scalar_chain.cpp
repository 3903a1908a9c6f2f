#include "kernels/emulate/scalar_chain.h"

#include <cmath>

#include "base/half.h"
#include "kernels/emulate/round_to_odd.h"
#include "kernels/emulate/scalar_chain_loops.h"

namespace qf {
namespace {

struct PortableLanes {
  struct Vector {
    float x[kPanelWidth];
  };
  static Vector all(float value) {
    Vector v;
    for (float& x : v.x) x = value;
    return v;
  }
  static Vector zero() { return all(0.0f); }
  static Vector load(const float* from) {
    Vector v;
    for (int c = 0; c < kPanelWidth; ++c) v.x[c] = from[c];
    return v;
  }
  static void store(float* to, const Vector& v) {
    for (int c = 0; c < kPanelWidth; ++c) to[c] = v.x[c];
  }
  static Vector mul(Vector a, const Vector& b) {
    for (int c = 0; c < kPanelWidth; ++c) a.x[c] *= b.x[c];
    return a;
  }
  static Vector fma(Vector a, const Vector& b, const Vector& add) {
    for (int c = 0; c < kPanelWidth; ++c) a.x[c] = std::fma(a.x[c], b.x[c], add.x[c]);
    return a;
  }
};

/// fp16 FMA: the product of two halves is exact in fp32; the sum is rounded to odd, then once to fp16.
float half_fma(float a, float w, float c) { return round_to_half(add_to_odd(a * w, c)); }

void half2_portable(const ScalarChainArgs& args) {
  for (int panel = 0; panel < args.panel_count; ++panel) {
    for (int row = 0; row < args.row_count; ++row) {
      const float* a = args.rows + row * args.ld;
      float* out = args.accumulator + row * args.accumulator_ld + panel * kPanelWidth;
      for (int64_t i = 0; i < args.walk.count; ++i) {
        const int64_t begin = args.walk.start + i * args.walk.stride;
        for (int64_t k = begin; k < begin + args.walk.length; k += 8) {
          const float* scale = args.panels[panel].scale + (args.k_origin + k) / args.group * kPanelWidth;
          for (int c = 0; c < kPanelWidth; ++c) {
            const float* w = args.panels[panel].value + k * kPanelWidth + c;
            float even = 0.0f, odd = 0.0f;
            for (int j = 0; j < 8; j += 2) {
              even = half_fma(a[k + j], w[j * kPanelWidth], even);
              odd = half_fma(a[k + j + 1], w[(j + 1) * kPanelWidth], odd);
            }
            out[c] = std::fma(even + odd, scale[c], out[c]);
          }
        }
      }
    }
  }
}

}  // namespace

void half2_chain(Isa isa, const ScalarChainArgs& args) {
#if defined(__x86_64__)
  if (isa == Isa::avx512) return avx512::half2_chain(args);
  if (isa == Isa::avx2) return avx2::half2_chain(args);
#endif
  half2_portable(args);
}

void float_chain(Isa isa, const ScalarChainArgs& args) {
#if defined(__x86_64__)
  if (isa == Isa::avx512) return avx512::float_chain(args);
  if (isa == Isa::avx2) return avx2::float_chain(args);
#endif
  float_chains<PortableLanes>(args);
}

void int32_chain(Isa isa, const ScalarChainArgs& args) {
#if defined(__x86_64__)
  if (isa == Isa::avx512) return avx512::int32_chain(args);
  if (isa == Isa::avx2) return avx2::int32_chain(args);
#endif
  int32_chains<PortableLanes>(args);
}

}  // namespace qf
