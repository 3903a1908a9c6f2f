// Dot chains, bare: for tests and benchmarks of the fast executors.
#include <vector>

#include "bindings/arrays.h"
#include "bindings/core_topics.h"
#include "numerics/dot_chain.h"
#include "numerics/unit_arithmetic.h"

namespace qf::bindings {
namespace {

struct Operands {
  std::vector<float> columns;  // [panels][K][16]
  std::vector<uint8_t> column_cells;
  std::vector<uint32_t> row_cells;
  std::vector<ChainPanel> panels;
};

Operands prepare(const Array<float>& rows, const Array<float>& columns, int lowest) {
  const int64_t k_count = columns.shape(0), n = columns.shape(1), panels = n / kPanelWidth;
  Operands out;
  out.columns.resize(static_cast<size_t>(k_count * n));
  const int64_t per_cell = panels_per_cell(lowest);
  out.column_cells.resize(static_cast<size_t>((panels + per_cell - 1) / per_cell * k_count * kCellBytes));
  for (int64_t p = 0; p < panels; ++p) {
    float* value = out.columns.data() + p * k_count * kPanelWidth;
    const PanelCodes codes = {out.column_cells.data() + p / per_cell * k_count * kCellBytes,
                              static_cast<int>(p % per_cell)};
    for (int64_t k = 0; k < k_count; ++k) {
      for (int c = 0; c < kPanelWidth; ++c) {
        const float x = columns.data()[k * n + p * kPanelWidth + c];
        value[k * kPanelWidth + c] = x;
        put_exponent_code(codes, k, c, lowest, x);
      }
    }
    out.panels.push_back({value, codes});
  }
  for (py::ssize_t i = 0; i < rows.size(); ++i) out.row_cells.push_back(row_cell(rows.data()[i], lowest));
  return out;
}

Array<float> run(const Array<float>& rows, const Array<float>& columns, const Array<float>& c, const MatrixUnit& unit,
                 bool fresh, const std::string& isa, int repeat) {
  require_shape(columns, {rows.shape(1), -1}, "columns");
  require_shape(c, {rows.shape(0), columns.shape(1)}, "c");
  require(columns.shape(1) % kPanelWidth == 0 && columns.shape(1) > 0,
          "columns: their number must be a multiple of 16");
  require(rows.shape(1) % 16 == 0 && rows.shape(1) > 0, "rows: K must be a multiple of 16");
  require(repeat >= 1, "repeat must be at least 1");
  const Operands operands = prepare(rows, columns, unit.input_exponent);
  Array<float> out({c.shape(0), c.shape(1)});
  ChainArgs args{};
  args.unit = unit;
  args.accumulate = fresh ? Accumulate::fresh_add : Accumulate::carried;
  args.walk = {0, rows.shape(1), rows.shape(1), 1};
  args.rows = {rows.data(), operands.row_cells.data(), rows.shape(1)};
  args.row_count = static_cast<int>(rows.shape(0));
  args.panels = operands.panels.data();
  args.panel_count = static_cast<int>(operands.panels.size());
  args.accumulator = out.mutable_data();
  args.accumulator_ld = c.shape(1);
  const bool oracle = isa == "oracle";
  const Isa chosen = oracle ? Isa::portable : parse_isa(isa);
  py::gil_scoped_release release;
  for (int i = 0; i < repeat; ++i) {
    std::copy(c.data(), c.data() + c.size(), args.accumulator);
    if (oracle) {
      dot_chain_oracle(args);
    } else {
      dot_chain(chosen, args);
    }
  }
  return out;
}

}  // namespace

void bind_chain(py::module_& m) {
  m.def(
      "dot_chain",
      [](const Array<float>& rows, const Array<float>& columns, const Array<float>& c, int products, int fraction_bits,
         bool half_out, int zero_exponent, int input_exponent, bool fresh, const std::string& isa, int repeat) {
        require(rows.ndim() == 2 && columns.ndim() == 2 && c.ndim() == 2,
                "rows, columns and c must have two dimensions");
        const MatrixUnit unit{products, fraction_bits,
                              half_out ? Rounding::fp16_nearest_even : Rounding::fp32_toward_zero, zero_exponent,
                              input_exponent};
        check_unit(unit);
        return run(rows, columns, c, unit, fresh, isa, repeat);
      },
      py::arg("rows"), py::arg("columns"), py::arg("c"), py::kw_only(), py::arg("products"), py::arg("fraction_bits"),
      py::arg("half_out"), py::arg("zero_exponent"), py::arg("input_exponent"), py::arg("fresh"), py::arg("isa"),
      py::arg("repeat"),
      "rows [R, K] float32 times columns [K, N] float32 onto c [R, N] float32 by chained matrix-unit steps; isa is "
      "'oracle' or an "
      "instruction set; the work is done `repeat` times (for timing), each from c.");
}

}  // namespace qf::bindings
