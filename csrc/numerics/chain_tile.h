// The fast form of a chain of matrix-unit steps, written once for every vector type V.
//
// Per step and output: E = the largest exponent; every product a * w is exact in fp32, times 2^(F - E) is exact too,
// and the conversion to int32 truncates toward zero, exactly as the unit cuts its terms. The integer sum is exact;
// converted back toward zero and scaled by 2^(E - F) it is the unit's result. A step leaves this path for the oracle
// when
//   * E is outside [kLowest, kHighest], where a scale or a product would leave fp32's normal range, or an input is Inf
//   or NaN;
//   * the sum of 16 terms of 25 fraction bits overflows int32 (seen from the signs).
//
// Included only by chain_<isa>.cpp, inside an anonymous namespace: code compiled for one instruction set must not be
// merged by the linker with code compiled for another.

/// V::lanes consecutive columns of a panel.
struct Columns {
  const float* value;
  const int16_t* exponent;
  float* accumulator;  // first row
};

struct TileArgs {
  const ChainArgs* chain;
  const float* row_value;
  const int16_t* row_exponent;
  const Columns* columns;
};

// Biased by 127, as all exponents below: -100 and 125.
constexpr int kLowest = 27, kHighest = 252;

template <class V, int L, Finish kFinish, int R, int C>
struct Tile {
  using Float = typename V::Float;
  using Int = typename V::Int;
  using Mask = typename V::Mask;
  struct State {
    Float acc[R][C];
  };

  const TileArgs& args;
  const int fraction, floor;
  const int64_t ld;

  explicit Tile(const TileArgs& tile)
      : args(tile),
        fraction(tile.chain->unit.fraction_bits),
        floor(kFinish == Finish::fp16_nearest_even ? tile.chain->unit.zero_exponent + 127 : kLowest),
        ld(tile.chain->rows.ld) {}

  // 16 terms of 25 fraction bits may pass 2^31: sum them in two halves and watch the signs of their sum.
  static constexpr int kHalf = L == 16 ? 8 : L;

  /// The exponent field (bits 23 and up) of E, never below the floor.
  Int largest_exponent(Int products, Float accumulator) const {
    // bounded to nine bits, so that Inf and NaN still lie above kHighest after the shift
    const Int bounded = V::min16(V::max16(V::max16(products, V::swap16(products)), V::set16(floor)), V::set16(255));
    return V::max_unsigned(V::shift_to_field(bounded), V::exponent_field(accumulator));
  }

  static Mask out_of_range(Int largest) {
    return V::outside_field(largest, kFinish == Finish::fp16_nearest_even ? 1 : kLowest + 1, kHighest);
  }

  static Float finish(Int sum, Float unscale) {
    if constexpr (kFinish == Finish::fp32_toward_zero) {
      return V::mul(V::to_float_toward_zero(sum), unscale);
    } else {
      return V::round_half(V::mul(V::to_float_sticky(sum), unscale));
    }
  }

  /// The oracle for every output of this step, except where all terms are zero (any scale gives the right +0).
  [[gnu::cold, gnu::noinline]] void exact_step(int64_t k, const State& before, State& after) const {
    alignas(64) float lanes[V::lanes];
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) {
        V::store(lanes, before.acc[r][c]);
        for (int lane = 0; lane < V::lanes; ++lane) {
          lanes[lane] = chain_exact_step(args.chain->unit, args.row_value + r * ld + k,
                                         args.columns[c].value + k * kPanelWidth + lane, L, lanes[lane]);
        }
        after.acc[r][c] = V::load(lanes);
      }
  }

  State step(int64_t k, const State& before) const {
    // rows in threes: two base pointers and ld address all of them
    const int16_t* const row_exponent[2] = {args.row_exponent + k, args.row_exponent + 3 * ld + k};
    const float* const row_value[2] = {args.row_value + k, args.row_value + 3 * ld + k};
    Int products[R][C];
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) products[r][c] = V::set16(2 * kZeroExponent);
    for (int j = 0; j < L; j += 2) {
      Int weight[C];
      for (int c = 0; c < C; ++c) weight[c] = V::load_int(args.columns[c].exponent + (k + j) * kPanelWidth);
      for (int r = 0; r < R; ++r) {
        const Int row = V::set_pair(row_exponent[r / 3] + r % 3 * ld + j);
        for (int c = 0; c < C; ++c) products[r][c] = V::max16(products[r][c], V::add16(weight[c], row));
      }
    }
    Float scale[R][C], unscale[R][C];
    Int low[R][C], high[R][C];
    Mask outside{};
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) {
        const Int largest = largest_exponent(products[r][c], before.acc[r][c]);
        outside = V::mask_or(outside, out_of_range(largest));
        scale[r][c] = V::as_float(V::sub(V::set((254 + fraction) << 23), largest));  // 2^(F - E)
        unscale[r][c] = V::as_float(V::sub(largest, V::set(fraction << 23)));        // 2^(E - F)
        low[r][c] = V::truncate(V::mul(before.acc[r][c], scale[r][c]));
        high[r][c] = V::set(0);
      }
    for (int j = 0; j < L; ++j) {
      Float weight[C];
      for (int c = 0; c < C; ++c) weight[c] = V::load(args.columns[c].value + (k + j) * kPanelWidth);
      for (int r = 0; r < R; ++r) {
        const Float row = V::set(row_value[r / 3][r % 3 * ld + j]);
        for (int c = 0; c < C; ++c) {
          const Int term = V::truncate(V::mul(V::mul(weight[c], row), scale[r][c]));
          if (j < kHalf) {
            low[r][c] = V::add(low[r][c], term);
          } else {
            high[r][c] = V::add(high[r][c], term);
          }
        }
      }
    }
    State after;
    Mask overflow{};
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) {
        Int sum = low[r][c];
        if constexpr (L != kHalf) {
          sum = V::add(low[r][c], high[r][c]);
          overflow = V::mask_or(overflow, V::overflows(low[r][c], high[r][c], sum));
        }
        after.acc[r][c] = finish(sum, unscale[r][c]);
      }
    if (V::any(V::mask_or(outside, overflow))) [[unlikely]] {
      if (V::any(overflow) || !all_outside_are_zero(products, before)) exact_step(k, before, after);
    }
    return after;
  }

  [[gnu::cold, gnu::noinline]] bool all_outside_are_zero(const Int (&products)[R][C], const State& before) const {
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) {
        const Mask outside = out_of_range(largest_exponent(products[r][c], before.acc[r][c]));
        if (V::any(V::and_not(outside, V::all_zero(products[r][c], before.acc[r][c])))) return false;
      }
    return true;
  }

  State fresh(int64_t k, const State& before) const {
    State sum;
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) sum.acc[r][c] = V::set(0.0f);
    for (int j = 0; j < 16; j += L) sum = step(k + j, sum);
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) sum.acc[r][c] = V::add(before.acc[r][c], sum.acc[r][c]);
    return sum;
  }

  void run() const {
    const ChainArgs& chain = *args.chain;
    State state;
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) state.acc[r][c] = V::load(args.columns[c].accumulator + r * chain.accumulator_ld);
    for (int64_t i = 0; i < chain.walk.count; ++i) {
      const int64_t begin = chain.walk.start + i * chain.walk.stride, end = begin + chain.walk.length;
      if (chain.accumulate == Accumulate::carried) {
        for (int64_t k = begin; k < end; k += L) state = step(k, state);
      } else {
        for (int64_t k = begin; k < end; k += 16) state = fresh(k, state);
      }
    }
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) V::store(args.columns[c].accumulator + r * chain.accumulator_ld, state.acc[r][c]);
  }
};

template <class V, int L, Finish kFinish, int R, int C>
void run_tile(const TileArgs& args) {
  Tile<V, L, kFinish, R, C>(args).run();
}

/// Covers rows x columns with tiles of the shapes that V declares, the widest first.
template <class V, int L, Finish kFinish>
void run_chain(const ChainArgs& args) {
  constexpr int kPerPanel = kPanelWidth / V::lanes;
  Columns columns[kMaxPanels * kPerPanel];
  const int vectors = args.panel_count * kPerPanel;
  for (int row = 0; row < args.row_count;) {
    const int rows = V::tile_rows(args.row_count - row);
    for (int v = 0; v < vectors; ++v) {
      const int shift = v % kPerPanel * V::lanes;
      columns[v] = {args.panels[v / kPerPanel].value + shift, args.panels[v / kPerPanel].exponent + 2 * shift,
                    args.accumulator + row * args.accumulator_ld + v * V::lanes};
    }
    for (int v = 0; v < vectors;) {
      const TileArgs tile{&args, args.rows.value + row * args.rows.ld, args.rows.exponent + row * args.rows.ld,
                          columns + v};
      v += V::template dispatch<L, kFinish>(rows, vectors - v, tile);
    }
    row += rows;
  }
}

template <class V>
bool run_vectorised(const ChainArgs& args) {
  const bool half = args.unit.rounding == Rounding::fp16_nearest_even;
  switch (args.unit.products) {
    case 4:
      (half ? run_chain<V, 4, Finish::fp16_nearest_even> : run_chain<V, 4, Finish::fp32_toward_zero>)(args);
      return true;
    case 8:
      (half ? run_chain<V, 8, Finish::fp16_nearest_even> : run_chain<V, 8, Finish::fp32_toward_zero>)(args);
      return true;
    case 16:
      (half ? run_chain<V, 16, Finish::fp16_nearest_even> : run_chain<V, 16, Finish::fp32_toward_zero>)(args);
      return true;
    default: return false;
  }
}
