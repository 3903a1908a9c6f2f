// Causal attention on a GPU: the bits of the CPU's definitions, for any emulated GPU.
#pragma once

#include <optional>

#include "base/cuda/buffer.h"
#include "numerics/cuda/scheme.h"
#include "operators/attention.h"

namespace qf::cuda {

/// What a call gets besides its arguments. None of it changes a result, but `scheme`, which only tests and benchmarks
/// set.
struct AttentionContext {
  const Allocator* allocator;
  void* stream;
  OwnUnit own;
  SfuView sfu;           // the emulated unit's tables, device pointers; unused by the fp32 definition
  bool own_ex2 = false;  // this GPU's ex2 gives the tables' bits for every input, so it may be asked instead
  std::optional<Scheme> scheme = std::nullopt;  // nothing: attention_scheme
  size_t workspace = size_t{256} << 20;  // bytes for the parts of split keys; exceeded by a single sequence alone
};

/// The scheme that attention takes for an emulated unit.
Scheme attention_scheme(const MatrixUnit& unit, OwnUnit own);

/// `args` as on the CPU, with device pointers in its sequences (`panels` unused); flash attention asks for 16-byte
/// aligned tokens. The calls are in the order of the stream and do not wait.
void attention_fa3(const AttentionContext& context, const AttentionArgs& args);
void attention_fa2(const AttentionContext& context, const AttentionArgs& args);
void attention_fp32(const AttentionContext& context, const AttentionArgs& args);

}  // namespace qf::cuda
