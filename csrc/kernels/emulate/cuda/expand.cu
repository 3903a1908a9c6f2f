#include "kernels/emulate/cuda/expand.h"

#include "base/cuda/check.h"
#include "kernels/emulate/cuda/narrow.cuh"
#include "kernels/emulate/round_to_odd.h"
#include "numerics/cuda/exponent_marks.cuh"

namespace qf::cuda {
namespace {

constexpr int kThreads = 256;

int blocks_for(int64_t count) { return static_cast<int>((count + kThreads - 1) / kThreads); }
int64_t padded_k(int64_t k) { return (k + 31) / 32 * 32; }

struct WeightView {
  const uint8_t *codes, *zeros;
  const uint16_t *scales, *dense;
  const float *offsets, *wide;
  const int32_t* order;  // where row k of the codes goes, or null
  int n, k, group, groups;
  Format format;
  WeightRule rule;
};

WeightView view(const Plan& plan, const DeviceWeight& w) {
  const int group = w.is_dense() ? static_cast<int>(w.k) : static_cast<int>(w.group);
  return {.codes = w.codes.data(),
          .zeros = w.zeros.data(),
          .scales = w.scales.data(),
          .dense = w.dense.data(),
          .offsets = w.offsets.data(),
          .wide = w.wide.data(),
          .order = plan.file_order ? w.order.data() : nullptr,
          .n = static_cast<int>(w.n),
          .k = static_cast<int>(w.k),
          .group = group,
          .groups = static_cast<int>(w.k) / group,
          .format = w.format,
          .rule = plan.weight};
}

/// Zero point, scale and offset of one group and column.
struct GroupNumbers {
  int group = -1;
  float zero = 0.0f, scale = 0.0f, offset = 0.0f;
};

/// add = rounded (base - z) * s; the weight is then rounded (q - base) * s + add.
__device__ float folded(float base, float zero, float scale, float code, Narrow narrow) {
  const float add = narrowed(narrow, (base - zero) * scale);
  return narrowed(narrow, (code - base) * scale + add);
}

/// Weights of one column, k ascending: as dequantize.cpp on the host.
class Column {
 public:
  __device__ Column(const WeightView& w, int n) : w_(w), panel_(n / kPanelWidth), column_(n % kPanelWidth) {}

  __device__ float number(int k) {
    const int64_t row = static_cast<int64_t>(panel_) * w_.k + k;
    if (w_.wide != nullptr) return w_.wide[row * kPanelWidth + column_];
    if (w_.rule == WeightRule::dense) return widened(w_.format, w_.dense[row * kPanelWidth + column_]);
    const uint8_t pair = w_.codes[row * 8 + column_ % 8];
    enter_group(k / w_.group);
    return quantized(static_cast<float>(column_ < 8 ? pair & 15 : pair >> 4));
  }

 private:
  __device__ void enter_group(int group) {
    if (group == now_.group) return;
    const int64_t at = (static_cast<int64_t>(panel_) * w_.groups + group) * kPanelWidth + column_;
    now_ = {group, static_cast<float>(w_.zeros[at]), widened(w_.format, w_.scales[at]),
            w_.offsets == nullptr ? 0.0f : w_.offsets[at]};
  }
  __device__ float quantized(float code) const {
    const float product = (code - now_.zero) * now_.scale;
    if (w_.offsets != nullptr) {
      return w_.rule == WeightRule::real ? product + now_.offset
                                         : narrowed(Narrow::bf16, add_to_odd(product, now_.offset));
    }
    switch (w_.rule) {
      case WeightRule::fp16_sub_mul: return narrowed(Narrow::fp16, product);
      case WeightRule::bf16_sub_mul: return narrowed(Narrow::bf16, product);
      case WeightRule::fp16_fma: return folded(0.0f, now_.zero, now_.scale, code, Narrow::fp16);
      case WeightRule::bf16_fma: return folded(0.0f, now_.zero, now_.scale, code, Narrow::bf16);
      case WeightRule::bf16_offset: return folded(8.0f, now_.zero, now_.scale, code, Narrow::bf16);
      case WeightRule::integer: return code - now_.zero;
      case WeightRule::real: return product;
      case WeightRule::dense: break;
    }
    return 0.0f;
  }

  const WeightView& w_;
  int panel_, column_;
  GroupNumbers now_;
};

/// Eight values, or exponents, written at once.
struct alignas(16) Octet {
  uint16_t at[8];
};

/// A thread makes eight consecutive k of one column; 16 threads share a panel's codes. exponent may be null.
__global__ void expand_weight_kernel(const WeightView w, Format format, int lowest, uint16_t* value, int16_t* exponent,
                                     int ld) {
  const int octets = ld / 8;
  const int64_t thread = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x, group = thread / kPanelWidth;
  const int n = static_cast<int>(group / octets) * kPanelWidth + static_cast<int>(thread % kPanelWidth);
  const int first = static_cast<int>(group % octets) * 8;
  if (n >= w.n) return;
  Column column(w, n);
  Octet bits, exponents;
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const float number = first + j < w.k ? column.number(first + j) : 0.0f;
    bits.at[j] = format == Format::bf16 ? bf16_bits(number) : half_bits(number);
    exponents.at[j] = static_cast<uint16_t>(marked_exponent(number, lowest));
  }
  const int64_t row = static_cast<int64_t>(n) * ld;
  if (w.order != nullptr) {
    for (int j = 0; j < 8; ++j) {
      const int64_t to = row + (first + j < w.k ? w.order[first + j] : first + j);
      value[to] = bits.at[j];
      if (exponent != nullptr) exponent[to] = static_cast<int16_t>(exponents.at[j]);
    }
    return;
  }
  *reinterpret_cast<Octet*>(value + row + first) = bits;
  if (exponent != nullptr) *reinterpret_cast<Octet*>(exponent + row + first) = exponents;
}

__global__ void expand_weight_fp32_kernel(const WeightView w, float* value, int64_t ld) {
  const int64_t thread = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  const int64_t k = thread / ld, n = thread % ld;
  if (k >= w.k) return;
  const int64_t to = w.order == nullptr ? k : w.order[k];
  value[to * ld + n] = n < w.n ? Column(w, static_cast<int>(n)).number(static_cast<int>(k)) : 0.0f;
}

struct ActivationView {
  const void* activations;
  int64_t lda, first_row, rows, k;
  Format format;
  const int32_t* order;
};

__device__ float activation_number(const ActivationView& a, int64_t row, int64_t k) {
  return load_number(a.format, a.activations, (a.first_row + row) * a.lda + (a.order == nullptr ? k : a.order[k]));
}

__global__ void expand_activations_kernel(ActivationView a, int lowest, uint16_t* value, int16_t* exponent,
                                          int64_t ld) {
  const int64_t thread = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  const int64_t row = thread / ld, k = thread % ld;
  if (row >= a.rows) return;
  const float number = k < a.k ? activation_number(a, row, k) : 0.0f;
  value[thread] = a.format == Format::bf16 ? bf16_bits(number) : half_bits(number);
  exponent[thread] = static_cast<int16_t>(marked_exponent(number, lowest) + 127);
}

__global__ void expand_activations_fp32_kernel(ActivationView a, float* value, int64_t ld) {
  const int64_t thread = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  const int64_t row = thread / ld, k = thread % ld;
  if (row >= a.rows) return;
  value[thread] = k < a.k ? activation_number(a, row, k) : 0.0f;
}

/// Symmetric int8 per group: scale = absmax / 127, number = RNE(x / scale). A thread per group.
__global__ void quantize_activations_kernel(float* value, int64_t ld, float* scale, int64_t rows, int64_t groups,
                                            int64_t group) {
  const int64_t thread = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  if (thread >= rows * groups) return;
  float* x = value + thread / groups * ld + thread % groups * group;
  float largest = 0.0f;
  for (int64_t i = 0; i < group; ++i) largest = fmaxf(largest, fabsf(x[i]));
  const float s = __fdiv_rn(largest, 127.0f);
  scale[thread] = s;
  for (int64_t i = 0; i < group; ++i) x[i] = s == 0.0f ? 0.0f : rintf(__fdiv_rn(x[i], s));
}

ActivationView view(const Plan& plan, const DeviceWeight& weight, const GemmArgs& args) {
  const int32_t* order = plan.file_order ? nullptr : weight.order.data();
  const int64_t rows = args.row_count < 0 ? plan.m - args.first_row : args.row_count;
  return {args.activations, args.lda, args.first_row, rows, plan.k, plan.activations, order};
}

}  // namespace

UnitOperand expand_weight(const Plan& plan, const DeviceWeight& weight, bool exponents, const Allocator& allocator,
                          void* stream) {
  UnitOperand out;
  out.rows = weight.n;
  out.ld = padded_k(weight.k);
  out.value = Buffer<uint16_t>(allocator, static_cast<size_t>(out.rows * out.ld), stream);
  if (exponents) out.exponent = Buffer<int16_t>(allocator, static_cast<size_t>(out.rows * out.ld), stream);
  const int64_t threads = weight.panels() * kPanelWidth * (out.ld / 8);
  expand_weight_kernel<<<blocks_for(threads), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      view(plan, weight), plan.activations, plan.unit.input_exponent, out.value.data(), out.exponent.data(),
      static_cast<int>(out.ld));
  check_launch("expand_weight");
  return out;
}

UnitOperand expand_activations(const Plan& plan, const DeviceWeight& weight, const GemmArgs& args,
                               const Allocator& allocator, void* stream) {
  const ActivationView from = view(plan, weight, args);
  UnitOperand out;
  out.rows = from.rows;
  out.ld = padded_k(plan.k);
  out.value = Buffer<uint16_t>(allocator, static_cast<size_t>(out.rows * out.ld), stream);
  out.exponent = Buffer<int16_t>(allocator, static_cast<size_t>(out.rows * out.ld), stream);
  expand_activations_kernel<<<blocks_for(out.rows * out.ld), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      from, plan.unit.input_exponent, out.value.data(), out.exponent.data(), out.ld);
  check_launch("expand_activations");
  return out;
}

ScalarOperand expand_weight_fp32(const Plan& plan, const DeviceWeight& weight, const Allocator& allocator,
                                 void* stream) {
  ScalarOperand out;
  out.rows = weight.k;
  out.ld = weight.panels() * kPanelWidth;
  out.value = Buffer<float>(allocator, static_cast<size_t>(out.rows * out.ld), stream);
  expand_weight_fp32_kernel<<<blocks_for(out.rows * out.ld), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      view(plan, weight), out.value.data(), out.ld);
  check_launch("expand_weight_fp32");
  return out;
}

ScalarOperand expand_activations_fp32(const Plan& plan, const DeviceWeight& weight, const GemmArgs& args,
                                      const Allocator& allocator, void* stream) {
  const auto s = static_cast<cudaStream_t>(stream);
  const ActivationView from = view(plan, weight, args);
  ScalarOperand out;
  out.rows = from.rows;
  out.ld = padded_k(plan.k);
  out.value = Buffer<float>(allocator, static_cast<size_t>(out.rows * out.ld), stream);
  expand_activations_fp32_kernel<<<blocks_for(out.rows * out.ld), kThreads, 0, s>>>(from, out.value.data(), out.ld);
  check_launch("expand_activations_fp32");
  if (plan.step != StepRule::int32) return out;
  const int64_t groups = plan.k / plan.activation_group;
  out.scale = Buffer<float>(allocator, static_cast<size_t>(out.rows * groups), stream);
  quantize_activations_kernel<<<blocks_for(out.rows * groups), kThreads, 0, s>>>(
      out.value.data(), out.ld, out.scale.data(), out.rows, groups, plan.activation_group);
  check_launch("quantize_activations");
  return out;
}

}  // namespace qf::cuda
