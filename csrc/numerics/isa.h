// Instruction sets of the fast CPU executors. Which one runs is an argument, never a guess inside a kernel.
#pragma once

#include <cstdint>
#include <string_view>

namespace qf {

enum class Isa : uint8_t { portable, avx2, avx512 };

/// The best instruction set of this machine.
Isa detect_isa();
const char* isa_name(Isa isa);
/// Inverse of isa_name; throws Error for an unknown name or one that this machine lacks.
Isa parse_isa(std::string_view name);

}  // namespace qf
