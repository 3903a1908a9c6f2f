#include <span>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/core_topics.h"
#include "forensics/distances.h"
#include "forensics/equivalence.h"

namespace qf::bindings {
namespace {

template <class T>
std::span<const T> flat(const Array<T>& array, const char* name) {
  require_shape(array, {-1}, name);
  return {array.data(), static_cast<size_t>(array.size())};
}

/// (offsets int64 [rows + 1], ids int32 [entries], logprobs float32 [entries], targets int32 [rows])
struct RowArrays {
  Array<int64_t> offsets;
  Array<int32_t> ids;
  Array<float> logprobs;
  Array<int32_t> targets;

  explicit RowArrays(const py::tuple& parts, const char* name)
      : offsets(take<int64_t>(parts, 0, name)),
        ids(take<int32_t>(parts, 1, name)),
        logprobs(take<float>(parts, 2, name)),
        targets(take<int32_t>(parts, 3, name)) {}

  LogprobRowsView view() const {
    return {flat(offsets, "offsets"), flat(ids, "ids"), flat(logprobs, "logprobs"), flat(targets, "targets")};
  }

 private:
  template <class T>
  static Array<T> take(const py::tuple& parts, size_t at, const char* name) {
    require(parts.size() == 4, name, ": expected (offsets, ids, logprobs, targets), found ", parts.size(), " arrays");
    require(py::isinstance<Array<T>>(parts[at]), name, ": array ", at, " has the wrong dtype or layout");
    return py::reinterpret_borrow<Array<T>>(parts[at]);
  }
};

template <class T>
py::array_t<T> to_array(const std::vector<T>& values) {
  return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

py::dict distances(const py::tuple& first, const py::tuple& second, int64_t rows, int64_t top_k, int64_t l2_top) {
  const RowArrays a(first, "first"), b(second, "second");
  const LogprobRowsView first_view = a.view(), second_view = b.view();
  RowDistances found;
  {
    py::gil_scoped_release release;
    found = compare_rows(first_view, second_view, rows, top_k, l2_top);
  }
  py::dict out;
  out["compared"] = to_array(found.compared);
  out["differing"] = to_array(found.differing);
  out["missing"] = to_array(found.missing);
  out["max_abs"] = to_array(found.max_abs);
  out["shared"] = to_array(found.shared);
  out["l2"] = to_array(found.l2);
  out["l2_shared"] = to_array(found.l2_shared);
  out["first"] = py::none();
  if (found.any_difference) {
    const EntryDifference& d = found.first;
    out["first"] = py::make_tuple(d.row, d.first_entry, d.found ? py::object(py::int_(d.second_entry)) : py::none());
  }
  return out;
}

double margin(const py::tuple& rows, int64_t row, int32_t chosen) {
  const RowArrays arrays(rows, "rows");
  const LogprobRowsView view = arrays.view();
  check_rows(view, "rows");
  return chosen_margin(view, row, chosen);
}

py::array_t<int64_t> classes(const Array<uint8_t>& same) {
  require_shape(same, {-1, same.ndim() == 2 ? same.shape(0) : -1}, "same");
  return to_array(equivalence_classes({same.data(), static_cast<size_t>(same.size())}, same.shape(0)));
}

}  // namespace

void bind_forensics(py::module_& m) {
  m.def("compare_rows", &distances, py::arg("first"), py::arg("second"), py::kw_only(), py::arg("rows"),
        py::arg("top_k"), py::arg("l2_top"),
        "Per-row distances of two (offsets, ids, logprobs, targets) tuples, as a dict.");
  m.def("chosen_margin", &margin, py::arg("rows"), py::arg("row"), py::arg("chosen"),
        "Logprob of the chosen id minus the largest other one of its row.");
  m.def(
      "first_divergence",
      [](const Array<int32_t>& a, const Array<int32_t>& b) {
        return first_divergence(flat(a, "first"), flat(b, "second"));
      },
      py::arg("first").noconvert(), py::arg("second").noconvert(),
      "First index at which the ids differ, or the shorter length.");
  m.def("equivalence_classes", &classes, py::arg("same").noconvert(),
        "Class of each of n items, from n x n uint8 flags; joined transitively, numbered by first member.");
}

}  // namespace qf::bindings
