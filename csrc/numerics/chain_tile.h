// The fast form of a chain of matrix-unit steps, written once for every vector type V.
//
// Per step and output: E = the largest exponent; every product a * w is exact in fp32, times 2^(F - E) is exact too,
// and the conversion to int32 truncates toward zero, exactly as the unit cuts its terms. The integer sum is exact;
// converted back toward zero and scaled by 2^(E - F) it is the unit's result.
//
// E of the products is the largest sum of two exponent codes (dot_chain.h). The codes of four panels (bytes; words:
// two) lie in one vector, so that one addition and one maximum serve four vectors of values.
//
// fp16 results: the sum, cut to fp32's 24 bits, is rounded to nearest. What was cut off can matter only where the rest
// lies half-way between two fp16 numbers, which have 11 bits: its low 12 bits are then zero. Such a step is done again,
// carefully, with the last bit set where bits were lost, if any were.
//
// Most steps need no look at the range of E: exponents that fit into byte codes have sums from -28 to 30, and an
// accumulator that was not large to begin with stays far below kHighest. A careful step looks at it. It serves word
// codes, "wild" accumulators and steps where a lane has no product but zeros (fp16 results: or only products below the
// smallest normal exponent, where subnormal accumulators have to be looked at).
//
// A step whose products are all zero (seen from the codes) gives finite accumulators back: their bits fit into the
// unit's fraction, so nothing is cut. A step leaves these paths for the oracle when
//   * a factor is Inf or NaN (seen from the codes), or an accumulator is (its E is above kHighest);
//   * E is outside [Codes::kLowest, kHighest], where a scale or a product would leave fp32's normal range. Below
//   Codes::kLowest lie also the lanes without a product, whose E is that of a sum with a zero's code: harmless when the
//   accumulator is zero too, or has the larger exponent;
//   * the sum of 16 terms of 25 fraction bits overflows int32 (seen from the signs).
//
// Included only by chain_<isa>.cpp, inside an anonymous namespace: code compiled for one instruction set must not be
// merged by the linker with code compiled for another.

/// V::lanes consecutive columns of a panel.
struct Columns {
  const float* value;
  const uint8_t* cells;  // their codes' cells
  int shift;             // bits from the low end of a cell to this panel's code
  float* accumulator;    // first row
};

struct TileArgs {
  const ChainArgs* chain;
  const float* row_value;
  const uint32_t* row_cell;
  const Columns* columns;
};

// Biased by 127, as all exponents below.
constexpr int kRowBlock = 8;  // rows of a tile
constexpr int kLowestScalable = WordCodes::kLowest, kHighest = 252;
constexpr int kSubnormalExponent = 127 - 14;  // as which fp16's subnormals count
constexpr int kLargestTame = 127 + 64;        // 2^40 steps of byte codes add less than 2^77

/// One row of C vectors of columns. Rows of a block take turns, step by step: while one waits for its accumulators'
/// exponents, the products of the next one run.
template <class V, class Codes, int L, Finish kFinish, int C>
struct Tile {
  using Float = typename V::Float;
  using Int = typename V::Int;
  static constexpr bool kHalfOut = kFinish == Finish::fp16_nearest_even;
  static constexpr bool kMostlyTame = Codes::kBytes == 1;
  static constexpr int kCells = C <= Codes::kPanels ? 1 : C / Codes::kPanels;  // vectors of codes beside C of values
  struct State {
    Float acc[C];
    bool wild = false;  // larger than kLargestTame, Inf or NaN, or was so once
  };
  struct Sums {  // largest sums of codes, or exponents made of them
    Int cell[kCells];
  };

  const TileArgs& args;
  const int fraction, floor;
  const int64_t ld;

  explicit Tile(const TileArgs& tile)
      : args(tile),
        fraction(tile.chain->unit.fraction_bits),
        floor(kHalfOut ? tile.chain->unit.zero_exponent + 127 : kLowestScalable - 1),
        ld(tile.chain->rows.ld) {}

  // 16 terms of 25 fraction bits may pass 2^31: sum them in two halves and watch the signs of their sum.
  static constexpr int kHalf = L == 16 ? 8 : L;
  // The least sum of codes whose E is at or above a subnormal fp16 accumulator's.
  static constexpr int kLeastUsual = kHalfOut ? kSubnormalExponent - Codes::kToField : Codes::kLargestZero + 1;
  // Without a floor of the unit's own, a lane below Codes::kLowest may have no product but zeros.
  static constexpr int kLowest = kHalfOut ? 1 : Codes::kLowest;

  /// The largest sums of N rows, which share the loads of the columns' codes.
  template <int N>
  [[gnu::always_inline]] void largest_sums(int64_t row, int64_t k, Sums* out) const {
    for (int v = 0; v < kCells; ++v) {
      const uint8_t* const weight = args.columns[v * Codes::kPanels].cells + k * kCellBytes;
      const uint32_t* const row_cell = args.row_cell + row * ld + k;
      Int sums[N];
#pragma GCC unroll 16
      for (int j = 0; j < L; ++j) {
        const Int codes = V::load_int(weight + j * kCellBytes);
        for (int r = 0; r < N; ++r) {
          const Int sum = V::add(codes, V::splat(row_cell + r * ld + j));
          sums[r] = j == 0 ? sum : Codes::max(sums[r], sum);
        }
      }
      for (int r = 0; r < N; ++r) out[r].cell[v] = sums[r];
    }
  }
  [[gnu::always_inline]] void largest_sums(int rows, int64_t k, Sums* out) const {
    int r = 0;
    for (; r + V::kSharedRows <= rows; r += V::kSharedRows) largest_sums<V::kSharedRows>(r, k, out + r);
    for (; r < rows; ++r) largest_sums<1>(r, k, out + r);
  }

  /// A lane whose products are all zero (fp16 results: or small), or one with an Inf or a NaN.
  static bool any_unusual(const Sums& sums) {
    bool found = false;
    for (int v = 0; v < kCells; ++v)
      found = found || Codes::any_outside(sums.cell[v], kLeastUsual, Codes::kLargestFinite);
    return found;
  }
  static bool all_at_most(const Sums& sums, int limit) {
    bool all = true;
    for (int v = 0; v < kCells; ++v) all = all && !Codes::any_outside(sums.cell[v], 0, limit);
    return all;
  }

  Sums exponents(const Sums& sums) const {
    Sums out;
    for (int v = 0; v < kCells; ++v)
      out.cell[v] = V::shift_right(Codes::exponents(sums.cell[v], floor), args.columns[0].shift);
    return out;
  }

  /// The exponent field (bits 23 and up) of the products' E.
  static Int products_exponent(const Sums& exponents, int c) {
    const int from = c % Codes::kPanels * 8 * Codes::kBytes;  // the code's place in its cell
    return V::exponent_bits(V::shift_left(exponents.cell[c / Codes::kPanels], 23 - from));
  }
  /// The same of all terms.
  template <bool careful = true>
  static Int largest_exponent(const Sums& exponents, int c, Float accumulator) {
    const Int products = products_exponent(exponents, c);
    Int own = V::exponent_bits(V::bits(accumulator));
    if constexpr (kHalfOut && careful) own = V::raise_nonzero(own, kSubnormalExponent << 23);
    return V::max_unsigned(products, own);
  }

  /// sum += the truncated products of kHalf k. Not unrolled: compilers then move the additions apart and spill terms.
  [[gnu::always_inline]] void add_products(const float* row_value, int64_t k, const Float (&scale)[C],
                                           Int (&sum)[C]) const {
    const float* weight[C];
    for (int c = 0; c < C; ++c) weight[c] = args.columns[c].value + k * kPanelWidth;
#pragma GCC unroll 1
    for (int64_t j = 0; j < kHalf; ++j) {
      const Float row = V::set(row_value[j]);
      for (int c = 0; c < C; ++c) {
        const Float product = V::mul(V::load(weight[c] + j * kPanelWidth), row);
        sum[c] = V::add(sum[c], V::truncate(V::mul(product, scale[c])));
      }
    }
  }

  /// `from_zero`: the accumulators are +0.
  template <bool from_zero = false>
  [[gnu::always_inline]] void step(int64_t row, int64_t k, const Sums& sums, State& state) const {
    bool careful = state.wild;
    if (any_unusual(sums)) [[unlikely]] {
      if (all_at_most(sums, Codes::kLargestZero) && keep_accumulators(state)) return;
      if (!all_at_most(sums, Codes::kLargestFinite)) return exact_step(row, k, state);
      careful = true;
    }
    if constexpr (kMostlyTame) {
      if (careful || !finite_step<from_zero, false>(row, k, sums, state)) [[unlikely]]
        careful_step(row, k, sums, state);
    } else {
      finite_step<from_zero, true>(row, k, sums, state);
    }
  }
  [[gnu::noinline]] void careful_step(int64_t row, int64_t k, const Sums& sums, State& state) const {
    finite_step<false, true>(row, k, sums, state);
  }

  /// False, with the accumulators as they were, where a careful step has to follow.
  template <bool from_zero, bool careful>
  [[gnu::always_inline]] bool finite_step(int64_t row, int64_t k, const Sums& sums, State& state) const {
    const Sums products = exponents(sums);
    Float scale[C], unscale[C];
    Int low[C], high[C], range = V::set(0), overflow = V::set(0), half_way = V::set(-1);
    for (int c = 0; c < C; ++c) {
      const Int largest =
          from_zero ? products_exponent(products, c) : largest_exponent<careful>(products, c, state.acc[c]);
      if constexpr (careful) range = V::max_unsigned(range, V::sub(largest, V::set(kLowest << 23)));  // wraps below
      scale[c] = V::as_float(V::sub(V::set((254 + fraction) << 23), largest));                        // 2^(F - E)
      unscale[c] = V::as_float(V::sub(largest, V::set(fraction << 23)));                              // 2^(E - F)
      low[c] = from_zero ? V::set(0) : V::truncate(V::mul(state.acc[c], scale[c]));
      high[c] = V::set(0);
    }
    const float* const row_value = args.row_value + row * ld + k;
    add_products(row_value, k, scale, low);
    if constexpr (L != kHalf) add_products(row_value + kHalf, k + kHalf, scale, high);
    Float after[C];
    Int sum[C];
    for (int c = 0; c < C; ++c) {
      sum[c] = low[c];
      if constexpr (L != kHalf) {
        sum[c] = V::add(low[c], high[c]);
        overflow = V::or_sign_differs(overflow, low[c], high[c], sum[c]);
      }
      if constexpr (!kHalfOut) {
        after[c] = V::mul(V::to_float_toward_zero(sum[c]), unscale[c]);
      } else if constexpr (careful) {
        after[c] = V::round_half(V::mul(V::to_float_sticky(sum[c]), unscale[c]));
      } else {
        const Float cut = V::to_float_toward_zero(sum[c]);
        half_way = V::min_unsigned(half_way, V::low_bits(V::bits(cut), 12));
        after[c] = V::round_half(V::mul(cut, unscale[c]));
      }
    }
    if (L != kHalf && V::any_negative(overflow)) [[unlikely]]
      return exact_step(row, k, state), true;
    if constexpr (careful) {
      if (V::any_above(range, (kHighest - kLowest) << 23) && !all_outside_are_zero(sums, state))
        return exact_step(row, k, state), true;
    } else if constexpr (kHalfOut) {
      if (V::any_zero(half_way)) [[unlikely]] {
        for (int c = 0; c < C; ++c) {
          // half-way but for lost bits: the low 12 become 1
          const Int low_bits = V::low_bits(V::bits(V::to_float_sticky(sum[c])), 12);
          if (V::any_zero(V::sub(low_bits, V::set(1)))) return false;
          // an accumulator that an earlier step rounded to Inf: beside it all products are cut to zero
          if (V::any_zero(V::sub(sum[c], V::set(INT32_MIN)))) return false;
        }
      }
    }
    for (int c = 0; c < C; ++c) state.acc[c] = after[c];
    return true;
  }

  /// A step of zero products gives back finite accumulators: their bits fit into the unit's fraction.
  [[gnu::noinline]] bool keep_accumulators(State& state) const {
    Int largest = V::set(0);
    for (int c = 0; c < C; ++c) largest = V::max_unsigned(largest, V::exponent_bits(V::bits(state.acc[c])));
    if (fraction < (kHalfOut ? 10 : 23) || V::any_above(largest, 254 << 23)) return false;
    for (int c = 0; c < C; ++c) state.acc[c] = V::add(state.acc[c], V::set(0.0f));  // -0 becomes +0, as a sum does
    return true;
  }

  /// The oracle for every output of this step.
  [[gnu::cold, gnu::noinline]] void exact_step(int64_t row, int64_t k, State& state) const {
    alignas(64) float lanes[V::lanes];
    for (int c = 0; c < C; ++c) {
      V::store(lanes, state.acc[c]);
      for (int lane = 0; lane < V::lanes; ++lane) {
        lanes[lane] = chain_exact_step(args.chain->unit, args.row_value + row * ld + k,
                                       args.columns[c].value + k * kPanelWidth + lane, L, lanes[lane]);
      }
      state.acc[c] = V::load(lanes);
    }
    state.wild = is_wild(state);
  }
  static bool is_wild(const State& state) {
    Int largest = V::set(0);
    for (int c = 0; c < C; ++c) largest = V::max_unsigned(largest, V::exponent_bits(V::bits(state.acc[c])));
    return state.wild || V::any_above(largest, kLargestTame << 23);
  }

  /// True where all lanes outside the range have zero products and a zero accumulator: any scale gives their +0.
  [[gnu::cold, gnu::noinline]] bool all_outside_are_zero(const Sums& sums, const State& before) const {
    const Sums products = exponents(sums);
    alignas(64) int32_t field[V::lanes], cell[V::lanes];
    alignas(64) float acc[V::lanes];
    for (int c = 0; c < C; ++c) {
      V::store(field, largest_exponent(products, c, before.acc[c]));
      V::store(cell, V::shift_right(sums.cell[c / Codes::kPanels],
                                    args.columns[0].shift + c % Codes::kPanels * 8 * Codes::kBytes));
      V::store(acc, before.acc[c]);
      for (int lane = 0; lane < V::lanes; ++lane) {
        const int e = field[lane] >> 23;
        const bool zero = (cell[lane] & Codes::kMask) <= Codes::kLargestZero && acc[lane] == 0.0f;
        if ((e < kLowest || e > kHighest) && !zero) return false;
      }
    }
    return true;
  }

  void run(int rows) const {
    const ChainArgs& chain = *args.chain;
    State states[kRowBlock];
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < C; ++c) states[r].acc[c] = V::load(args.columns[c].accumulator + r * chain.accumulator_ld);
      states[r].wild = is_wild(states[r]);
    }
    for (int64_t i = 0; i < chain.walk.count; ++i) {
      const int64_t begin = chain.walk.start + i * chain.walk.stride, end = begin + chain.walk.length;
      if (chain.accumulate == Accumulate::carried) {
        for (int64_t k = begin; k < end; k += L) {
          Sums sums[kRowBlock];
          largest_sums(rows, k, sums);
          for (int r = 0; r < rows; ++r) step(r, k, sums[r], states[r]);
        }
      } else {
        for (int64_t k = begin; k < end; k += 16) {
          Sums sums[16 / L][kRowBlock];
          for (int j = 0; j < 16 / L; ++j) largest_sums(rows, k + j * L, sums[j]);
          for (int r = 0; r < rows; ++r) {
            State fresh;
            for (int c = 0; c < C; ++c) fresh.acc[c] = V::set(0.0f);
            step<true>(r, k, sums[0][r], fresh);
            for (int j = 1; j < 16 / L; ++j) step(r, k + j * L, sums[j][r], fresh);
            for (int c = 0; c < C; ++c) states[r].acc[c] = V::add(states[r].acc[c], fresh.acc[c]);
          }
        }
      }
    }
    for (int r = 0; r < rows; ++r)
      for (int c = 0; c < C; ++c) {
        // what rounds to zero is +0 in fp16 results; on the way a -0 does what +0 does
        if constexpr (kHalfOut) states[r].acc[c] = V::add(states[r].acc[c], V::set(0.0f));
        V::store(args.columns[c].accumulator + r * chain.accumulator_ld, states[r].acc[c]);
      }
  }
};

/// Runs one tile of as many of the `left` vectors as fit; returns their number.
template <class V, class Codes, int L, Finish kFinish>
int run_tile(int rows, int left, const TileArgs& args) {
  const int lane = args.columns[0].shift / (8 * Codes::kBytes);
  if (left >= 4 && lane == 0) return Tile<V, Codes, L, kFinish, 4>(args).run(rows), 4;
  if (left >= 2 && lane + 2 <= Codes::kPanels) return Tile<V, Codes, L, kFinish, 2>(args).run(rows), 2;
  return Tile<V, Codes, L, kFinish, 1>(args).run(rows), 1;
}

/// Covers rows x columns with tiles.
template <class V, class Codes, int L, Finish kFinish>
void run_chain(const ChainArgs& args) {
  Columns columns[kMaxPanels];
  const int panels = args.panel_count < kMaxPanels ? args.panel_count : kMaxPanels;
  for (int row = 0; row < args.row_count; row += kRowBlock) {
    const int rows = args.row_count - row < kRowBlock ? args.row_count - row : kRowBlock;
    for (int part = 0; part < kPanelWidth; part += V::lanes) {
      for (int p = 0; p < panels; ++p) {
        const ChainPanel& panel = args.panels[p];
        columns[p] = {panel.value + part, panel.codes.cells + 4 * part, panel.codes.lane * 8 * Codes::kBytes,
                      args.accumulator + row * args.accumulator_ld + p * kPanelWidth + part};
      }
      for (int v = 0; v < panels;) {
        v += run_tile<V, Codes, L, kFinish>(
            rows, panels - v,
            {&args, args.rows.value + row * args.rows.ld, args.rows.cell + row * args.rows.ld, columns + v});
      }
    }
  }
}

template <class V, class Codes>
bool run_steps(const ChainArgs& args) {
  const bool half = args.unit.rounding == Rounding::fp16_nearest_even;
  constexpr Finish kHalf = Finish::fp16_nearest_even, kFloat = Finish::fp32_toward_zero;
  switch (args.unit.products) {
    case 4: (half ? run_chain<V, Codes, 4, kHalf> : run_chain<V, Codes, 4, kFloat>)(args); return true;
    case 8: (half ? run_chain<V, Codes, 8, kHalf> : run_chain<V, Codes, 8, kFloat>)(args); return true;
    case 16: (half ? run_chain<V, Codes, 16, kHalf> : run_chain<V, Codes, 16, kFloat>)(args); return true;
    default: return false;
  }
}

template <class V>
bool run_vectorised(const ChainArgs& args) {
  const bool bytes = exponent_code_of(args.unit.input_exponent).bytes == 1;
  return (bytes ? run_steps<V, typename V::Bytes> : run_steps<V, typename V::Words>)(args);
}
