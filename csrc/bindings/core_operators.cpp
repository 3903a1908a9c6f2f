// Operators over NumPy arrays: fp16 and bf16 travel as their bits (uint16), fp32 as float32.
#include <algorithm>
#include <cstring>
#include <set>

#include <pybind11/stl.h>

#include "bindings/arrays.h"
#include "bindings/core_topics.h"
#include "numerics/unit_arithmetic.h"
#include "operators/attention_panels.h"
#include "operators/attention_splits.h"
#include "operators/operator_set.h"

namespace qf::bindings {
namespace {

using Shape = std::vector<py::ssize_t>;

/// Contiguous array of the storage format of `dtype`, of this shape (-1: any length).
py::array checked(const py::array& array, DType dtype, const Shape& shape, const char* name) {
  const bool wide = dtype == DType::fp32;
  require(wide ? py::isinstance<Array<float>>(array) : py::isinstance<Array<uint16_t>>(array), name,
          ": expected a contiguous array of ", wide ? "float32" : "uint16 (the bits of ", wide ? "" : dtype_name(dtype),
          wide ? "" : ")");
  require_shape(array, shape, name);
  return array;
}

py::array empty(DType dtype, const Shape& shape) {
  if (dtype == DType::fp32) return Array<float>(shape);
  return Array<uint16_t>(shape);
}

py::array copied(const py::array& array, DType dtype) {
  py::array out = empty(dtype, Shape(array.shape(), array.shape() + array.ndim()));
  std::memcpy(out.mutable_data(), array.data(), static_cast<size_t>(array.nbytes()));
  return out;
}

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

  template <class Args>
  void run(const Definition<Args>& definition, const Args& args) {
    require(context_.sfu != nullptr || definition.notes == nullptr,
            "this definition needs the special-function tables");
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

py::array embedding(Runtime& runtime, const std::string& dtype_text, const py::array& table,
                    const Array<int64_t>& ids) {
  const DType dtype = parse_dtype(dtype_text);
  checked(table, dtype, {-1, -1}, "table");
  require_shape(ids, {-1}, "ids");
  py::array out = empty(dtype, {ids.shape(0), table.shape(1)});
  runtime.run(runtime.set().embedding, EmbeddingArgs{dtype, table.data(), ids.data(), out.mutable_data(),
                                                     table.shape(0), table.shape(1), ids.shape(0)});
  return out;
}

py::array rms_norm(Runtime& runtime, const std::string& dtype_text, const py::array& x, const py::array& weight,
                   float epsilon) {
  const DType dtype = parse_dtype(dtype_text);
  require(x.ndim() == 2 || x.ndim() == 3, "x: expected [rows, columns] or [tokens, heads, columns], found ",
          shape_text(x));
  checked(x, dtype, Shape(static_cast<size_t>(x.ndim()), -1), "x");
  const py::ssize_t columns = x.shape(x.ndim() - 1), inner = x.ndim() == 3 ? x.shape(1) : 1;
  checked(weight, dtype, {columns}, "weight");
  py::array out = empty(dtype, Shape(x.shape(), x.shape() + x.ndim()));
  RmsNormArgs args{};
  args.dtype = dtype;
  args.x = x.data();
  args.weight = weight.data();
  args.out = out.mutable_data();
  args.rows = x.shape(0) * inner;
  args.columns = args.inner_stride = columns;
  args.stride = inner * columns;
  args.inner_rows = inner;
  args.epsilon = epsilon;
  runtime.run(runtime.set().rms_norm, args);
  return out;
}

py::tuple fused_add_rms_norm(Runtime& runtime, const std::string& dtype_text, const py::array& x,
                             const py::array& residual, const py::array& weight, float epsilon) {
  const DType dtype = parse_dtype(dtype_text);
  checked(x, dtype, {-1, -1}, "x");
  checked(residual, dtype, {x.shape(0), x.shape(1)}, "residual");
  checked(weight, dtype, {x.shape(1)}, "weight");
  py::array out = empty(dtype, {x.shape(0), x.shape(1)}), sum = empty(dtype, {x.shape(0), x.shape(1)});
  runtime.run(runtime.set().fused_add_rms_norm,
              FusedAddRmsNormArgs{dtype, x.data(), residual.data(), weight.data(), out.mutable_data(),
                                  sum.mutable_data(), x.shape(0), x.shape(1), epsilon});
  return py::make_tuple(out, sum);
}

py::array rotary_cache(Runtime& runtime, const std::string& dtype_text, float theta, int64_t head_size,
                       int64_t positions, float factor, float low, float high, float original) {
  const DType dtype = parse_dtype(dtype_text);
  check_rope(theta, head_size, positions, {factor, low, high, original});
  py::array out = empty(dtype, {positions, head_size});
  runtime.run(runtime.set().rotary_cache,
              RotaryCacheArgs{dtype, theta, head_size, positions, {factor, low, high, original}, out.mutable_data()});
  return out;
}

py::array rotary(Runtime& runtime, const std::string& dtype_text, const py::array& x, const Array<int64_t>& positions,
                 const py::array& cache) {
  const DType dtype = parse_dtype(dtype_text);
  checked(x, dtype, {-1, -1, -1}, "x");
  require(x.shape(2) > 0 && x.shape(2) % 2 == 0, "x: expected an even head size, found ", x.shape(2));
  require_shape(positions, {x.shape(0)}, "positions");
  checked(cache, dtype, {-1, x.shape(2)}, "cache");
  py::array out = copied(x, dtype);
  runtime.run(runtime.set().rotary, RotaryArgs{dtype, positions.data(), cache.data(), out.mutable_data(), x.shape(0),
                                               x.shape(1), x.shape(2), x.shape(1) * x.shape(2), cache.shape(0)});
  return out;
}

py::array silu_and_mul(Runtime& runtime, const std::string& dtype_text, const py::array& x) {
  const DType dtype = parse_dtype(dtype_text);
  checked(x, dtype, {-1, -1}, "x");
  require(x.shape(1) % 2 == 0, "x: expected gate and up side by side, found ", shape_text(x));
  py::array out = empty(dtype, {x.shape(0), x.shape(1) / 2});
  runtime.run(runtime.set().silu_and_mul,
              SiluAndMulArgs{dtype, x.data(), out.mutable_data(), x.shape(0), x.shape(1) / 2});
  return out;
}

Array<float> log_softmax(Runtime& runtime, const std::string& dtype_text, const py::array& logits) {
  const DType dtype = parse_dtype(dtype_text);
  checked(logits, dtype, {-1, -1}, "logits");
  Array<float> out({logits.shape(0), logits.shape(1)});
  runtime.run(runtime.set().log_softmax, LogSoftmaxArgs{dtype, logits.data(), out.mutable_data(), logits.shape(0),
                                                        logits.shape(1), logits.shape(1)});
  return out;
}

py::tuple top_k(Runtime& runtime, const Array<float>& logprobs, int64_t k) {
  require_shape(logprobs, {-1, -1}, "logprobs");
  require(k >= 0 && k <= logprobs.shape(1), "k: top ", k, " of ", logprobs.shape(1), " columns");
  Array<int32_t> ids({logprobs.shape(0), static_cast<py::ssize_t>(k)});
  Array<float> values({logprobs.shape(0), static_cast<py::ssize_t>(k)});
  runtime.run(runtime.set().top_k, TopKArgs{logprobs.data(), logprobs.shape(0), logprobs.shape(1), k,
                                            ids.mutable_data(), values.mutable_data()});
  return py::make_tuple(ids, values);
}

py::list attention(Runtime& runtime, const std::string& dtype_text, const std::vector<py::array>& q,
                   const std::vector<py::array>& k, const std::vector<py::array>& v, float scale, int64_t sm_count,
                   int products, int fraction_bits, int zero_exponent, const std::vector<KeyValuePanels*>& panels) {
  const DType dtype = parse_dtype(dtype_text);
  require(!q.empty() && q.size() == k.size() && q.size() == v.size(), "q, k, v: one array per sequence each");
  require(panels.empty() || panels.size() == q.size(), "panels: none, or one per sequence");
  py::list outputs;
  std::vector<AttentionSequence> sequences;
  checked(q[0], dtype, {-1, -1, -1}, "q");
  checked(k[0], dtype, {-1, -1, -1}, "k");
  const py::ssize_t heads = q[0].shape(1), kv_heads = k[0].shape(1), size = q[0].shape(2);
  require(kv_heads > 0 && heads % kv_heads == 0, "q: ", heads, " heads are no multiple of k's ", kv_heads);
  for (size_t i = 0; i < q.size(); ++i) {
    checked(q[i], dtype, {-1, heads, size}, "q");
    checked(k[i], dtype, {-1, kv_heads, size}, "k");
    checked(v[i], dtype, {k[i].shape(0), kv_heads, size}, "v");
    py::array out = empty(dtype, {q[i].shape(0), heads, size});
    sequences.push_back({q[i].data(), k[i].data(), v[i].data(), out.mutable_data(), q[i].shape(0), k[i].shape(0),
                         panels.empty() ? nullptr : panels[i]});
    outputs.append(out);
  }
  const MatrixUnit unit{products, fraction_bits, Rounding::fp32_toward_zero, zero_exponent,
                        dtype == DType::fp16 ? -14 : -126};
  check_unit(unit);
  runtime.run(runtime.set().attention,
              AttentionArgs{dtype, sequences.data(), static_cast<int64_t>(sequences.size()), heads, kv_heads, size,
                            heads * size, kv_heads * size, kv_heads * size, heads * size, scale, sm_count, unit});
  return outputs;
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
  py::class_<Runtime>(m, "OperatorRuntime", "The operators of an engine profile on a GPU generation.")
      .def(py::init<const std::string&, int, const SfuTables*, const std::string&, int>(), py::arg("profile"),
           py::arg("compute_major"), py::arg("tables").none(true), py::arg("isa"), py::arg("threads"),
           py::keep_alive<1, 4>())
      .def("choose", &Runtime::choose, py::arg("operator"), py::arg("definition"))
      .def_property_readonly("unconfirmed", &Runtime::unconfirmed)
      .def("embedding", &embedding)
      .def("rms_norm", &rms_norm)
      .def("fused_add_rms_norm", &fused_add_rms_norm)
      .def("rotary_cache", &rotary_cache)
      .def("rotary", &rotary)
      .def("silu_and_mul", &silu_and_mul)
      .def("log_softmax", &log_softmax)
      .def("top_k", &top_k)
      .def("attention", &attention);
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
