// What the plan functions share: the start of a plan, and the pieces that follow from the number format alone.
#pragma once

#include "base/integers.h"
#include "kernels/gemm.h"

namespace qf {

/// Shape, formats, sub_mul weights, the device's fp32-accumulating unit, bias after rounding where there is one.
Plan begin_plan(const char* kernel, const Problem& problem, const DeviceNumbers& device, const KernelOptions& options);
/// A bias that is added to the rounded result.
void add_bias_after(Plan& plan, const KernelOptions& options);
/// Refuses formats other than the listed ones, naming the kernel.
void require_format(const char* kernel, Format format, std::initializer_list<Format> allowed);
Narrow narrow_of(Format format);
/// `split` contiguous parts of K, whole tiles of 64 each but the last, added serially; parts and sums are rounded to
/// `narrow`.
Tree contiguous_parts(int64_t k, int64_t split, Narrow narrow);
/// One tree for the whole output.
void whole_output(Plan& plan, const Tree& tree);
/// Whether the device is the only one that recordings exist of (132 SMs with the (16, 25) unit).
bool recorded_device(const DeviceNumbers& device);
/// Adds the note that no recording exists of this device's order or unit.
void note_device(Plan& plan, const DeviceNumbers& device);
/// SMs that one wave of `cluster`-sized clusters fills: 18 SMs at a time (a GPC), whole clusters only.
int64_t wave_size(int64_t sm_count, int64_t cluster);

}  // namespace qf
