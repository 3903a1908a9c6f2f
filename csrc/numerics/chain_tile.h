// The fast form of a chain of matrix-unit steps, written once for every vector type V.
//
// Per step and output: E = the largest exponent; every product a * w is exact in fp32, times 2^(F - E) is exact too, and the
// conversion to int32 truncates toward zero, exactly as the unit cuts its terms. The integer sum is exact; converted back
// toward zero and scaled by 2^(E - F) it is the unit's result. A step leaves this path for the oracle when
//   * E is outside [kLowest, kHighest], where a scale or a product would leave fp32's normal range, or an input is Inf or NaN;
//   * the sum of 16 terms of 25 fraction bits overflows int32 (seen from the signs).
//
// Included only by chain_<isa>.cpp, inside an anonymous namespace: code compiled for one instruction set must not be
// merged by the linker with code compiled for another.

/// Columns of one vector: value[k * 16], exponent[k * 16] are V::lanes consecutive columns of a panel.
struct Columns {
  const float* value;
  const int32_t* exponent;
  float* accumulator;  // first row
};

struct TileArgs {
  const ChainArgs* chain;
  const float* row_value;
  const int32_t* row_exponent;
  const Columns* columns;
};

constexpr int kLowest = -100, kHighest = 125;

template <class V, int L, Finish kFinish, int R, int C>
struct Tile {
  using Float = typename V::Float;
  using Int = typename V::Int;

  const TileArgs& args;
  const int fraction;
  const int64_t ld;
  Float acc[R][C];

  explicit Tile(const TileArgs& tile)
      : args(tile), fraction(tile.chain->unit.fraction_bits), ld(tile.chain->rows.ld) {}

  // 16 or more terms of 25 fraction bits may pass 2^31: sum them in two halves and watch the signs of their sum.
  static constexpr int kHalf = L == 16 ? 8 : L;

  void exact_step(int64_t k, int r, int c) {
    alignas(64) float lanes[V::lanes];
    V::store(lanes, acc[r][c]);
    for (int lane = 0; lane < V::lanes; ++lane) {
      lanes[lane] = chain_exact_step(args.chain->unit, args.row_value + r * ld + k,
                                     args.columns[c].value + k * kPanelWidth + lane, L, lanes[lane]);
    }
    acc[r][c] = V::load(lanes);
  }

  /// True when no lane needs the oracle. `products` is the largest exponent of the products alone.
  static bool in_range(Int largest, Int products, Float accumulator) {
    const auto outside = V::outside(largest, kLowest, kHighest);
    if (!V::any(outside)) return true;
    // lanes in which every term is zero are fine: any scale gives +0
    return !V::any(V::and_not(outside, V::all_zero(products, accumulator)));
  }

  static Float finish(Int sum, Float unscale) {
    if constexpr (kFinish == Finish::fp32_toward_zero) {
      return V::mul(V::to_float_toward_zero(sum), unscale);
    } else {
      return V::round_half(V::mul(V::to_float_sticky(sum), unscale));
    }
  }

  void step(int64_t k) {
    Int products[R][C];
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) products[r][c] = V::set(kZeroExponent * 2);
    for (int j = 0; j < L; ++j) {
      Int weight[C];
      for (int c = 0; c < C; ++c) weight[c] = V::load_int(args.columns[c].exponent + (k + j) * kPanelWidth);
      for (int r = 0; r < R; ++r) {
        const Int row = V::set(args.row_exponent[r * ld + k + j]);
        for (int c = 0; c < C; ++c) products[r][c] = V::max(products[r][c], V::add(weight[c], row));
      }
    }
    Float scale[R][C], unscale[R][C], before[R][C];
    Int low[R][C], high[R][C];
    bool fast[R][C];
    const Int floor = V::set(kFinish == Finish::fp16_nearest_even ? args.chain->unit.zero_exponent : kLowest);
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) {
        Int largest = V::max(products[r][c], V::exponent(acc[r][c]));
        fast[r][c] = in_range(largest, products[r][c], acc[r][c]);
        largest = V::max(largest, floor);
        scale[r][c] = V::power(V::sub(V::set(fraction), largest));
        unscale[r][c] = V::power(V::sub(largest, V::set(fraction)));
        before[r][c] = acc[r][c];
        low[r][c] = V::truncate(V::mul(acc[r][c], scale[r][c]));
        high[r][c] = V::set(0);
      }
    for (int j = 0; j < L; ++j) {
      Float weight[C];
      for (int c = 0; c < C; ++c) weight[c] = V::load(args.columns[c].value + (k + j) * kPanelWidth);
      for (int r = 0; r < R; ++r) {
        const Float row = V::set(args.row_value[r * ld + k + j]);
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
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) {
        const Int sum = L == kHalf ? low[r][c] : V::add(low[r][c], high[r][c]);
        acc[r][c] = finish(sum, unscale[r][c]);
        if (L != kHalf) fast[r][c] = fast[r][c] && !V::overflows(low[r][c], high[r][c], sum);
        if (!fast[r][c]) [[unlikely]] {
          acc[r][c] = before[r][c];
          exact_step(k, r, c);
        }
      }
  }

  void fresh(int64_t k) {
    Float total[R][C];
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) {
        total[r][c] = acc[r][c];
        acc[r][c] = V::set(0.0f);
      }
    for (int j = 0; j < 16; j += L) step(k + j);
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) acc[r][c] = V::add(total[r][c], acc[r][c]);
  }

  void run() {
    const ChainArgs& chain = *args.chain;
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) acc[r][c] = V::load(args.columns[c].accumulator + r * chain.accumulator_ld);
    for (int64_t i = 0; i < chain.walk.count; ++i) {
      const int64_t begin = chain.walk.start + i * chain.walk.stride, end = begin + chain.walk.length;
      if (chain.accumulate == Accumulate::carried) {
        for (int64_t k = begin; k < end; k += L) step(k);
      } else {
        for (int64_t k = begin; k < end; k += 16) fresh(k);
      }
    }
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) V::store(args.columns[c].accumulator + r * chain.accumulator_ld, acc[r][c]);
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
      columns[v] = {args.panels[v / kPerPanel].value + shift, args.panels[v / kPerPanel].exponent + shift,
                    args.accumulator + row * args.accumulator_ld + v * V::lanes};
    }
    for (int v = 0; v < vectors;) {
      const TileArgs tile{&args, args.rows.value + row * args.rows.ld, args.rows.exponent + row * args.rows.ld, columns + v};
      v += V::template dispatch<L, kFinish>(rows, vectors - v, tile);
    }
    row += rows;
  }
}

template <class V>
bool run_vectorised(const ChainArgs& args) {
  const bool half = args.unit.rounding == Rounding::fp16_nearest_even;
  switch (args.unit.products) {
    case 4: (half ? run_chain<V, 4, Finish::fp16_nearest_even> : run_chain<V, 4, Finish::fp32_toward_zero>)(args); return true;
    case 8: (half ? run_chain<V, 8, Finish::fp16_nearest_even> : run_chain<V, 8, Finish::fp32_toward_zero>)(args); return true;
    case 16: (half ? run_chain<V, 16, Finish::fp16_nearest_even> : run_chain<V, 16, Finish::fp32_toward_zero>)(args); return true;
    default: return false;
  }
}
