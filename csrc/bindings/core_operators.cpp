// Operators over NumPy arrays: fp16 and bf16 travel as their bits (uint16), fp32 as float32.
#include <algorithm>
#include <set>

#include <pybind11/stl.h>

#include "bindings/core_topics.h"
#include "bindings/operator_calls.h"
#include "operators/attention_panels.h"
#include "operators/attention_splits.h"
#include "operators/operator_set.h"

namespace qf::bindings {
namespace {

/// An instruction set, threads and tables, with the definitions of one profile: everything a call needs but its arrays.
class Runtime {
 public:
  Runtime(const std::string& profile, int compute_major, const SfuTables* tables, const std::string& isa, int threads)
      : set_(operator_set(profile, compute_major)), pool_(threads), tables_(tables) {
    context_ = {parse_isa(isa), &pool_, tables == nullptr ? nullptr : &tables->view()};
  }

  void choose(const std::string& name, const std::string& definition) { choose_definition(set_, name, definition); }
  std::vector<std::string> unconfirmed() const { return {notes_.begin(), notes_.end()}; }
  const OperatorSet& set() const { return set_; }

  static const void* in(const py::array& array) { return array.data(); }
  static void* out(py::array& array) { return array.mutable_data(); }
  static void* inout(py::array& array) { return array.mutable_data(); }

  template <class Args>
  void run(const Definition<Args>& definition, const Args& args) {
    require_tables(context_.sfu != nullptr, definition.name);
    definition.add_unconfirmed(args, notes_);
    py::gil_scoped_release release;
    definition(context_, args);
  }

 private:
  OperatorSet set_;
  ThreadPool pool_;
  const SfuTables* tables_;
  OperatorContext context_{};
  std::set<std::string> notes_;
};

py::list attention(Runtime& runtime, const std::string& dtype_text, const std::vector<py::array>& q,
                   const std::vector<py::array>& k, const std::vector<py::array>& v, float scale, int64_t sm_count,
                   int products, int fraction_bits, int zero_exponent, const std::vector<KeyValuePanels*>& panels) {
  AttentionCall call = attention_call(runtime, dtype_text, q, k, v, scale, sm_count,
                                      {products, fraction_bits, Rounding::fp32_toward_zero, zero_exponent, 0});
  require(panels.empty() || panels.size() == q.size(), "panels: none, or one per sequence");
  for (size_t i = 0; i < panels.size(); ++i) call.sequences[i].panels = panels[i];
  runtime.run(runtime.set().attention, call.args());
  return call.outputs;
}

constexpr int64_t kLargestSize = int64_t{1} << 28;  // products of two of them stay far inside int64

/// Parts that a call with one sequence is cut into.
int64_t split_count(const std::string& definition, int64_t queries, int64_t keys, int64_t heads, int64_t kv_heads,
                    int64_t head_size, int64_t sm_count) {
  require(queries > 0 && keys >= queries && heads > 0 && kv_heads > 0 && heads % kv_heads == 0 && head_size > 0 &&
              sm_count > 0,
          "attention_splits: sizes contradict each other");
  require(std::max({keys, heads, head_size, sm_count}) <= kLargestSize, "attention_splits: a size is beyond ",
          kLargestSize);
  const AttentionSizes sizes{queries, keys, heads / kv_heads, kv_heads, head_size, sm_count};
  if (definition == "fa2") return fa2_splits(sizes, 1);
  require(definition == "fa3", "attention_splits: '", definition, "' does not split; one of: fa2, fa3");
  const AttentionTile tile = fa3_tile(queries, sizes.group, head_size);
  return fa3_splits(sizes, tile, fa3_split_bound(sizes), fa3_blocks(sizes, tile));
}

}  // namespace

void bind_operators(py::module_& m) {
  py::class_<KeyValuePanels>(m, "KeyValuePanels", "Prepared keys and values of one sequence; see attention_panels.h.")
      .def(py::init<int64_t, int64_t>(), py::arg("kv_heads"), py::arg("head_size"))
      .def_property_readonly("keys", &KeyValuePanels::keys)
      .def("truncate", &KeyValuePanels::truncate, py::arg("keys"));
  py::class_<Runtime> runtime(m, "OperatorRuntime", "The operators of an engine profile on a GPU generation.");
  runtime
      .def(py::init<const std::string&, int, const SfuTables*, const std::string&, int>(), py::arg("profile"),
           py::arg("compute_major"), py::arg("tables").none(true), py::arg("isa"), py::arg("threads"),
           py::keep_alive<1, 4>())
      .def("choose", &Runtime::choose, py::arg("operator"), py::arg("definition"))
      .def_property_readonly("unconfirmed", &Runtime::unconfirmed)
      .def("attention", &attention);
  bind_operator_calls(runtime);
  m.def("attention_whole_keys", &whole_keys, py::arg("definition"), py::arg("head_size"));
  m.def("attention_splits", &split_count, py::arg("definition"), py::kw_only(), py::arg("queries"), py::arg("keys"),
        py::arg("heads"), py::arg("kv_heads"), py::arg("head_size"), py::arg("sm_count"));
  m.def("operator_profiles", &operator_profiles);
  m.def("operator_definitions", [] {
    py::list out;
    for (const DefinitionInfo& info : operator_definitions())
      out.append(py::make_tuple(info.name, info.definition, info.source));
    return out;
  });
}

}  // namespace qf::bindings
