// Named GPUs: the numbers of their matrix units and the few sizes that kernels' reduction plans depend on. All rows are
// in device_profiles.def, each with its source.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "numerics/matrix_unit.h"

namespace qf {

enum class InputFormat : uint8_t { fp16, bf16, tf32, e4m3, e5m2, int8 };
enum class OutputFormat : uint8_t { fp32, fp16, int32 };

/// What one instruction does with its products.
enum class UnitMethod : uint8_t {
  fused,         // steps of MatrixUnit, the accumulator inside the fused sum
  through_fp16,  // fp8 `mma.sync` on Hopper and B200: see fp8_through_fp16 in unit_arithmetic.h
  exact_int32,   // integer products and sums, wrapping
};

struct DeviceUnit {
  std::string_view architecture;
  std::string_view path;  // "mma" (mma.sync), "wgmma", "tcgen05"
  InputFormat input;
  OutputFormat output;
  UnitMethod method;
  MatrixUnit unit;  // through_fp16: the fp16 unit; exact_int32: only `products`
  std::string_view source;

  /// Products per step: what a chain advances by.
  int step() const { return method == UnitMethod::through_fp16 ? 2 * unit.products : unit.products; }
};

struct DeviceProfile {
  std::string_view name;          // "a100-sxm4-80gb"
  std::string_view title;         // "NVIDIA A100-SXM4-80GB", as the driver says it
  std::string_view words;         // further words that this device is known by
  std::string_view architecture;  // volta, turing, ampere, ada, hopper, blackwell
  int compute_capability;         // 80 for 8.0
  int sm_count;
  int shared_memory_per_block;  // bytes, with opt-in
  std::string_view source;
};

/// In the order of device_profiles.def; of several that a short name fits, the first one is meant.
std::span<const DeviceProfile> device_profiles();
std::span<const DeviceUnit> device_units();

/// Forgiving: case, separators, vendor words and missing detail do not matter ('h200', 'A100', 'NVIDIA
/// A100-SXM4-80GB'). Throws Error with the close matches for a name that fits nothing.
const DeviceProfile& find_device(std::string_view name);

/// Throws Error, naming what this device has, when it has no such unit.
const DeviceUnit& find_unit(const DeviceProfile& device, std::string_view path, InputFormat input, OutputFormat output);

std::string_view format_name(InputFormat format);
std::string_view format_name(OutputFormat format);
/// Inverses; throw Error with the list of names.
InputFormat parse_input_format(std::string_view name);
OutputFormat parse_output_format(std::string_view name);

}  // namespace qf
