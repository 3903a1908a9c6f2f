// The calls of operators over NumPy arrays, for every kind of runtime: a runtime says where an array's data is for its
// executor (in: read, out: written, inout: both) and runs a definition. fp16 and bf16 travel as their bits (uint16).
#pragma once

#include <cstring>
#include <vector>

#include "bindings/arrays.h"
#include "numerics/unit_arithmetic.h"
#include "operators/operator_set.h"

namespace qf::bindings {

using Shape = std::vector<py::ssize_t>;

/// Throws Error where a definition that stands for an engine has no tables; the others compute without.
inline void require_tables(bool has_tables, std::string_view definition) {
  require(has_tables || definition == "fp32" || definition == "copy" || definition == "by_value", "definition '",
          definition, "' needs the special-function tables");
}

/// Contiguous array of the storage format of `dtype`, of this shape (-1: any length).
inline py::array checked(const py::array& array, DType dtype, const Shape& shape, const char* name) {
  const bool wide = dtype == DType::fp32;
  require(wide ? py::isinstance<Array<float>>(array) : py::isinstance<Array<uint16_t>>(array), name,
          ": expected a contiguous array of ", wide ? "float32" : "uint16 (the bits of ", wide ? "" : dtype_name(dtype),
          wide ? "" : ")");
  require_shape(array, shape, name);
  return array;
}

inline py::array empty(DType dtype, const Shape& shape) {
  if (dtype == DType::fp32) return Array<float>(shape);
  return Array<uint16_t>(shape);
}

inline py::array copied(const py::array& array, DType dtype) {
  py::array out = empty(dtype, Shape(array.shape(), array.shape() + array.ndim()));
  std::memcpy(out.mutable_data(), array.data(), static_cast<size_t>(array.nbytes()));
  return out;
}

template <class Runtime>
py::array embedding(Runtime& runtime, const std::string& dtype_text, const py::array& table,
                    const Array<int64_t>& ids) {
  const DType dtype = parse_dtype(dtype_text);
  checked(table, dtype, {-1, -1}, "table");
  require_shape(ids, {-1}, "ids");
  py::array out = empty(dtype, {ids.shape(0), table.shape(1)});
  runtime.run(runtime.set().embedding,
              EmbeddingArgs{dtype, runtime.in(table), static_cast<const int64_t*>(runtime.in(ids)), runtime.out(out),
                            table.shape(0), table.shape(1), ids.shape(0)});
  return out;
}

template <class Runtime>
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
  args.x = runtime.in(x);
  args.weight = runtime.in(weight);
  args.out = runtime.out(out);
  args.rows = x.shape(0) * inner;
  args.columns = args.inner_stride = columns;
  args.stride = inner * columns;
  args.inner_rows = inner;
  args.epsilon = epsilon;
  runtime.run(runtime.set().rms_norm, args);
  return out;
}

/// Heads of `columns` elements that lie from element `first` on in wider rows (q, k and v side by side).
inline void check_heads(const py::array& rows, int64_t first, int64_t heads, int64_t columns) {
  require(first >= 0 && heads > 0 && first + heads * columns <= rows.shape(1), "rows of ", rows.shape(1),
          " elements have no ", heads, " heads of ", columns, " from element ", first);
}

/// The per-head norm in place: a copy of `rows` with those heads normed.
template <class Runtime>
py::array head_norm(Runtime& runtime, const std::string& dtype_text, const py::array& rows, const py::array& weight,
                    float epsilon, int64_t first, int64_t heads) {
  const DType dtype = parse_dtype(dtype_text);
  checked(rows, dtype, {-1, -1}, "rows");
  checked(weight, dtype, {-1}, "weight");
  const py::ssize_t columns = weight.shape(0);
  check_heads(rows, first, heads, columns);
  py::array out = copied(rows, dtype);
  char* x = static_cast<char*>(runtime.inout(out)) + first * dtype_bytes(dtype);
  runtime.run(runtime.set().rms_norm, RmsNormArgs{dtype, x, runtime.in(weight), x, rows.shape(0) * heads, columns,
                                                  rows.shape(1), heads, columns, epsilon});
  return out;
}

template <class Runtime>
py::tuple fused_add_rms_norm(Runtime& runtime, const std::string& dtype_text, const py::array& x,
                             const py::array& residual, const py::array& weight, float epsilon) {
  const DType dtype = parse_dtype(dtype_text);
  checked(x, dtype, {-1, -1}, "x");
  checked(residual, dtype, {x.shape(0), x.shape(1)}, "residual");
  checked(weight, dtype, {x.shape(1)}, "weight");
  py::array out = empty(dtype, {x.shape(0), x.shape(1)}), sum = empty(dtype, {x.shape(0), x.shape(1)});
  runtime.run(runtime.set().fused_add_rms_norm,
              FusedAddRmsNormArgs{dtype, runtime.in(x), runtime.in(residual), runtime.in(weight), runtime.out(out),
                                  runtime.out(sum), x.shape(0), x.shape(1), epsilon});
  return py::make_tuple(out, sum);
}

template <class Runtime>
py::array rotary_cache(Runtime& runtime, const std::string& dtype_text, float theta, int64_t head_size,
                       int64_t positions, float factor, float low, float high, float original) {
  const DType dtype = parse_dtype(dtype_text);
  check_rope(theta, head_size, positions, {factor, low, high, original});
  py::array out = empty(dtype, {positions, head_size});
  runtime.run(runtime.set().rotary_cache,
              RotaryCacheArgs{dtype, theta, head_size, positions, {factor, low, high, original}, runtime.out(out)});
  return out;
}

template <class Runtime>
py::array rotary(Runtime& runtime, const std::string& dtype_text, const py::array& x, const Array<int64_t>& positions,
                 const py::array& cache) {
  const DType dtype = parse_dtype(dtype_text);
  checked(x, dtype, {-1, -1, -1}, "x");
  require(x.shape(2) > 0 && x.shape(2) % 2 == 0, "x: expected an even head size, found ", x.shape(2));
  require_shape(positions, {x.shape(0)}, "positions");
  checked(cache, dtype, {-1, x.shape(2)}, "cache");
  py::array out = copied(x, dtype);
  runtime.run(runtime.set().rotary, RotaryArgs{dtype, static_cast<const int64_t*>(runtime.in(positions)),
                                               runtime.in(cache), runtime.inout(out), x.shape(0), x.shape(1),
                                               x.shape(2), x.shape(1) * x.shape(2), cache.shape(0)});
  return out;
}

/// The same for heads inside wider rows, see head_norm.
template <class Runtime>
py::array rotary_heads(Runtime& runtime, const std::string& dtype_text, const py::array& rows,
                       const Array<int64_t>& positions, const py::array& cache, int64_t first, int64_t heads) {
  const DType dtype = parse_dtype(dtype_text);
  checked(rows, dtype, {-1, -1}, "rows");
  require_shape(positions, {rows.shape(0)}, "positions");
  checked(cache, dtype, {-1, -1}, "cache");
  require(cache.shape(1) > 0 && cache.shape(1) % 2 == 0, "cache: expected an even head size, found ", cache.shape(1));
  check_heads(rows, first, heads, cache.shape(1));
  py::array out = copied(rows, dtype);
  char* x = static_cast<char*>(runtime.inout(out)) + first * dtype_bytes(dtype);
  runtime.run(runtime.set().rotary,
              RotaryArgs{dtype, static_cast<const int64_t*>(runtime.in(positions)), runtime.in(cache), x, rows.shape(0),
                         heads, cache.shape(1), rows.shape(1), cache.shape(0)});
  return out;
}

template <class Runtime>
py::array silu_and_mul(Runtime& runtime, const std::string& dtype_text, const py::array& x) {
  const DType dtype = parse_dtype(dtype_text);
  checked(x, dtype, {-1, -1}, "x");
  require(x.shape(1) % 2 == 0, "x: expected gate and up side by side, found ", shape_text(x));
  py::array out = empty(dtype, {x.shape(0), x.shape(1) / 2});
  runtime.run(runtime.set().silu_and_mul,
              SiluAndMulArgs{dtype, runtime.in(x), runtime.out(out), x.shape(0), x.shape(1) / 2});
  return out;
}

template <class Runtime>
Array<float> log_softmax(Runtime& runtime, const std::string& dtype_text, const py::array& logits) {
  const DType dtype = parse_dtype(dtype_text);
  checked(logits, dtype, {-1, -1}, "logits");
  Array<float> out({logits.shape(0), logits.shape(1)});
  runtime.run(runtime.set().log_softmax,
              LogSoftmaxArgs{dtype, runtime.in(logits), static_cast<float*>(runtime.out(out)), logits.shape(0),
                             logits.shape(1), logits.shape(1)});
  return out;
}

inline void check_top(int64_t k, py::ssize_t columns) {
  require(k >= 0 && k <= columns, "k: top ", k, " of ", columns, " columns");
}

template <class Runtime>
py::tuple top_k(Runtime& runtime, const Array<float>& logprobs, int64_t k) {
  require_shape(logprobs, {-1, -1}, "logprobs");
  check_top(k, logprobs.shape(1));
  Array<int32_t> ids({logprobs.shape(0), static_cast<py::ssize_t>(k)});
  Array<float> values({logprobs.shape(0), static_cast<py::ssize_t>(k)});
  runtime.run(runtime.set().top_k,
              TopKArgs{static_cast<const float*>(runtime.in(logprobs)), logprobs.shape(0), logprobs.shape(1), k,
                       static_cast<int32_t*>(runtime.out(ids)), static_cast<float*>(runtime.out(values))});
  return py::make_tuple(ids, values);
}

/// A call of attention: arguments and arrays of results.
struct AttentionCall {
  AttentionArgs sizes{};
  std::vector<AttentionSequence> sequences;
  py::list outputs;

  AttentionArgs args() const {
    AttentionArgs args = sizes;
    args.sequences = sequences.data();
    args.sequence_count = static_cast<int64_t>(sequences.size());
    return args;
  }
};

/// `unit`'s input exponent is that of the arrays' format.
template <class Runtime>
AttentionCall attention_call(Runtime& runtime, const std::string& dtype_text, const std::vector<py::array>& q,
                             const std::vector<py::array>& k, const std::vector<py::array>& v, float scale,
                             int64_t sm_count, MatrixUnit unit) {
  const DType dtype = parse_dtype(dtype_text);
  require(!q.empty() && q.size() == k.size() && q.size() == v.size(), "q, k, v: one array per sequence each");
  checked(q[0], dtype, {-1, -1, -1}, "q");
  checked(k[0], dtype, {-1, -1, -1}, "k");
  const py::ssize_t heads = q[0].shape(1), kv_heads = k[0].shape(1), size = q[0].shape(2);
  require(kv_heads > 0 && heads % kv_heads == 0, "q: ", heads, " heads are no multiple of k's ", kv_heads);
  for (size_t i = 0; i < q.size(); ++i) {
    checked(q[i], dtype, {-1, heads, size}, "q");
    checked(k[i], dtype, {-1, kv_heads, size}, "k");
    checked(v[i], dtype, {k[i].shape(0), kv_heads, size}, "v");
  }
  unit.input_exponent = dtype == DType::fp16 ? -14 : -126;
  check_unit(unit);
  AttentionCall call;
  call.sizes = {dtype,           nullptr,      0,     heads,    kv_heads, size, heads * size, kv_heads * size,
                kv_heads * size, heads * size, scale, sm_count, unit};
  for (size_t i = 0; i < q.size(); ++i) {
    py::array out = empty(dtype, {q[i].shape(0), heads, size});
    call.sequences.push_back({runtime.in(q[i]), runtime.in(k[i]), runtime.in(v[i]), runtime.out(out), q[i].shape(0),
                              k[i].shape(0), nullptr});
    call.outputs.append(out);
  }
  return call;
}

/// Binds the calls above but attention, which takes more of some runtimes.
template <class Runtime>
void bind_operator_calls(py::class_<Runtime>& type) {
  type.def("embedding", &embedding<Runtime>)
      .def("rms_norm", &rms_norm<Runtime>)
      .def("head_norm", &head_norm<Runtime>)
      .def("fused_add_rms_norm", &fused_add_rms_norm<Runtime>)
      .def("rotary_cache", &rotary_cache<Runtime>)
      .def("rotary", &rotary<Runtime>)
      .def("rotary_heads", &rotary_heads<Runtime>)
      .def("silu_and_mul", &silu_and_mul<Runtime>)
      .def("log_softmax", &log_softmax<Runtime>)
      .def("top_k", &top_k<Runtime>);
}

}  // namespace qf::bindings
