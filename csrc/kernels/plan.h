// The reduction plan of one GEMM: who is added to whom, in what order, with which rounding. Data, made by one
// plan_<kernel>.cpp per kernel, printed by describe_plan.cpp, carried out by emulate/.
//
// Every output element owns the leaves of its region's tree. A leaf is one accumulator that starts from +0 and walks
// its k in order; combine nodes add leaves and earlier nodes; the last node goes through the epilogue.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "numerics/dot_chain.h"
#include "numerics/matrix_unit.h"

namespace qf {

enum class Format : uint8_t { fp16, bf16, fp32 };

/// What number a weight (code q, zero point z, scale s) becomes. RN: round to nearest even; one rounding each.
enum class WeightRule : uint8_t {
  fp16_sub_mul,  // RN16((q - z) * s)
  bf16_sub_mul,  // RNbf16((q - z) * s)
  fp16_fma,      // RN16(q * s + RN16(-z * s))
  bf16_fma,      // RNbf16(q * s + RNbf16(-z * s))
  bf16_offset,   // RNbf16((q - 8) * s + RNbf16((8 - z) * s)); stored offsets: RNbf16((q - z) * s + offset)
  integer,       // q - z, exact; the scale comes later
  real,          // (q - z) * s + offset in fp32 (exact without an offset)
  dense,         // stored as a number
};

/// How an accumulator takes its products.
enum class StepRule : uint8_t {
  matrix_unit,        // steps of the unit, the accumulator inside the fused sum
  matrix_unit_fresh,  // every 16 k: t = steps from +0, then acc = acc + t in fp32
  half2_chain,  // every 8 k: two chains of four fp16 FMAs (even k, odd k) from +0; their fp32 sum times s joins acc by
                // fp32 FMA
  float_fma,    // fp32 FMA per k
  int32,  // every `activation_group` k: exact int32 sum of int8 activations; times both scales joins acc by fp32 FMA
};

/// Rounding of a partial or final result.
enum class Narrow : uint8_t { none, fp16, bf16 };

struct Leaf {
  std::vector<KWalk> walks;  // one after the other, same accumulator
};

/// Node `leaves + i` = narrow(left + right), the sum rounded to nearest in fp32. Both operands come earlier.
struct Add {
  int32_t left;
  int32_t right;
  Narrow narrow;
};

struct Tree {
  std::vector<Leaf> leaves;
  Narrow leaf_narrow = Narrow::none;
  std::vector<Add> adds;
  /// Atomics: the leaves are added to +0 one by one, each sum rounded by `race_narrow`, in an order that the hardware
  /// decides per unit (row, 64 columns, parity of column / 2). `adds` is empty then.
  bool racing = false;
  Narrow race_narrow = Narrow::fp16;

  int root() const { return static_cast<int>(leaves.size() + adds.size()) - 1; }
};

/// Outputs [row_begin, row_end) x [column_begin, column_end) share one tree. Columns are cut at multiples of 16.
struct Region {
  int64_t row_begin, row_end;
  int64_t column_begin, column_end;
  int32_t tree;
};

enum class BiasRule : uint8_t {
  none,
  after_rounding,   // out = RN(RN(acc) + bias)
  before_rounding,  // out = RN(RN32(acc + bias))
  fused_scale,      // out = RN(RN(acc) * s[column] + bias): the channel scale's multiplication and the addition, fused
};

struct Epilogue {
  bool channel_scale = false;  // out = RN(RN(acc) * s[column]): weights were integers
  BiasRule bias = BiasRule::none;
  Format output = Format::fp16;
};

struct Plan {
  std::string kernel;    // what runs, after switches inside a kernel (exllama above 50 rows is hgemm)
  std::string sentence;  // one line in words
  int64_t m = 0, n = 0, k = 0;
  int64_t group = 0;  // k rows per scale row, resolved (never -1)
  Format activations = Format::fp16;
  WeightRule weight = WeightRule::fp16_sub_mul;
  StepRule step = StepRule::matrix_unit;
  MatrixUnit unit{};             // where the step rule uses one
  int64_t activation_group = 0;  // int32: k per activation scale
  bool file_order = false;       // act-order: weights become numbers in the checkpoint's order of k, before the walk
  std::vector<Tree> trees;
  std::vector<Region> regions;  // disjoint, cover the output
  Epilogue epilogue;
  std::vector<std::string> facts;        // decisions worth reading: tile, cluster, slices, ...
  std::vector<std::string> unconfirmed;  // what no recording confirms; empty: confirmed

  bool confirmed() const { return unconfirmed.empty(); }
};

/// Index of `tree` in the plan, appended when it is new.
int32_t intern_tree(Plan& plan, const Tree& tree);
/// Adds a region, growing the previous one when it continues it with the same tree along the columns.
void add_region(Plan& plan, const Region& region);
/// Throws Error unless the regions cover the output exactly once and every leaf walks inside [0, k), each k once.
void check_plan(const Plan& plan);

/// left + right[0] + right[1] ... in the order given, starting with the first node.
void add_serially(Tree& tree, const std::vector<int32_t>& nodes, Narrow each);
/// One walk over [begin, end).
Leaf straight_leaf(int64_t begin, int64_t end);
/// One leaf over all of K, everywhere.
Tree single_walk(int64_t k);

const char* format_name(Format format);
const char* weight_rule_text(WeightRule rule);
const char* step_rule_text(StepRule rule);
/// The plan in words: facts, regions, each tree with its nodes.
std::string describe(const Plan& plan);

}  // namespace qf
