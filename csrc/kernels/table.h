// The kernels and variants that exist, derived from kernels.def and variants.def.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "kernels/gemm.h"
#include "kernels/layer_rules.h"

namespace qf {

struct KernelInfo {
  const char* name;
  const char* options;  // names, separated by spaces, of the KernelOptions it reads
  const char* summary;
  Plan (*plan)(const Problem&, const DeviceNumbers&, const KernelOptions&);
};

struct VariantInfo {
  const char* variant;
  const char* gpu_class;  // "any" or an architecture: volta, turing, ampere, ada, hopper, blackwell
  const char* engine;
  bool (*takes)(const LayerShape&);
  const char* kernel;
};

const std::vector<KernelInfo>& kernel_table();
const std::vector<VariantInfo>& variant_table();
const KernelInfo& find_kernel(std::string_view name);
/// The kernel that `engine` runs for a layer of `variant` on a GPU of this class; without a layer, for the shapes that
/// its first choice takes.
std::string resolve_variant(std::string_view variant, std::string_view gpu_class, std::string_view engine,
                            const LayerShape* layer = nullptr);

/// The checked plan of one GEMM.
Plan make_plan(std::string_view kernel, const Problem& problem, const DeviceNumbers& device,
               const KernelOptions& options);

#define QF_KERNEL(name, option_names, summary) \
  Plan plan_##name(const Problem& problem, const DeviceNumbers& device, const KernelOptions& options);
#include "kernels/kernels.def"
#undef QF_KERNEL

}  // namespace qf
