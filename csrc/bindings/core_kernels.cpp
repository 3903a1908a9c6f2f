// Plans, packed weights and the emulator. Defaults and names live in python/qforensics/kernels.py.
#include <pybind11/stl.h>

#include <mutex>
#include <optional>
#include <tuple>

#include "bindings/arrays.h"
#include "bindings/core_topics.h"
#include "bindings/kernel_arrays.h"
#include "kernels/emulate/emulate_gemm.h"
#include "kernels/race/explain_race.h"
#include "kernels/table.h"
#include "numerics/unit_arithmetic.h"

namespace qf::bindings {
namespace {

Format parse_format(const std::string& name) {
  for (const Format format : {Format::fp16, Format::bf16, Format::fp32}) {
    if (name == format_name(format)) return format;
  }
  throw Error("unknown number format '" + name + "'; one of: fp16, bf16, fp32");
}

PackedWeight pack_codes_array(const Array<uint8_t>& codes, const Array<uint8_t>& zeros, const Array<uint16_t>& scales,
                              const std::string& scale_format, int64_t group_size,
                              const std::optional<Array<float>>& offsets,
                              const std::optional<Array<int32_t>>& group_index) {
  require_shape(codes, {-1, -1}, "codes");
  const int64_t k = codes.shape(0), n = codes.shape(1), group = group_size == -1 ? k : group_size;
  require(group >= 1 && k % group == 0, "K = ", k, " is no multiple of the group size ", group_size);
  require_shape(zeros, {k / group, n}, "zeros");
  require_shape(scales, {k / group, n}, "scales");
  if (offsets) require_shape(*offsets, {k / group, n}, "offsets");
  if (group_index) require_shape(*group_index, {k}, "group_index");
  const CodesSource source{n,
                           k,
                           group,
                           codes.data(),
                           zeros.data(),
                           scales.data(),
                           parse_format(scale_format),
                           offsets ? offsets->data() : nullptr,
                           group_index ? group_index->data() : nullptr};
  py::gil_scoped_release release;
  return pack_codes(source);
}

PackedWeight pack_wide_array(const Array<float>& weight) {
  require_shape(weight, {-1, -1}, "weight");
  const int64_t n = weight.shape(0), k = weight.shape(1);
  py::gil_scoped_release release;
  return pack_dense(weight.data(), n, k);
}

PackedWeight pack_dense_array(const Array<uint16_t>& weight, const std::string& format) {
  require_shape(weight, {-1, -1}, "weight");
  const int64_t n = weight.shape(0), k = weight.shape(1);
  const Format parsed = parse_format(format);
  py::gil_scoped_release release;
  return pack_dense(weight.data(), n, k, parsed);
}

template <class T>
T number(const py::dict& numbers, const char* name, const char* expected) {
  require(numbers.contains(name), name, ": expected ", expected, ", found nothing");
  try {
    return numbers[name].cast<T>();
  } catch (const py::cast_error&) {
    throw Error(std::string(name) + ": expected " + expected);
  }
}

/// fp16, bf16, fp16_out: (products, fraction bits, zero exponent), products 0 where the device has no such unit;
/// sm_count; shared_memory_per_block.
DeviceNumbers device_numbers(const py::dict& numbers) {
  const auto unit = [&](const char* name, Rounding rounding, int lowest) {
    const auto [products, fraction_bits, zero_exponent] =
        number<std::tuple<int, int, int>>(numbers, name, "(products, fraction bits, zero exponent)");
    const MatrixUnit found{products, fraction_bits, rounding, zero_exponent, lowest};
    if (products != 0) check_unit(found);
    return found;
  };
  const auto size = [&](const char* name) {
    const int found = number<int>(numbers, name, "an integer");
    require(found >= 1 && found <= (1 << 24), name, ": expected 1 .. 2^24, found ", found);
    return found;
  };
  return {unit("fp16", Rounding::fp32_toward_zero, -14), unit("bf16", Rounding::fp32_toward_zero, -126),
          unit("fp16_out", Rounding::fp16_nearest_even, -14), size("sm_count"), size("shared_memory_per_block")};
}

struct Runner {  // an executor context that owns its threads
  Runner(const std::string& name, int threads) : isa(parse_isa(name)), pool(threads) {}
  ExecutorContext context(uint64_t seed, bool deterministic) { return {isa, &pool, seed, deterministic}; }
  Isa isa;
  ThreadPool pool;
  std::mutex mutex;  // a pool serves one caller at a time; Python threads may share a runner
};

py::array emulate(const Plan& plan, const PackedWeight& weight, const py::array& activations,
                  const std::optional<py::array>& bias, Runner& runner, uint64_t seed, bool deterministic,
                  const std::optional<std::pair<int64_t, int64_t>>& rows) {
  check_gemm_arrays(plan, activations, bias);
  const auto [first_row, row_count] = rows.value_or(std::pair<int64_t, int64_t>{0, plan.m});
  require(row_count >= 0, "rows: ", row_count, " of them");
  py::array out = new_output(plan, row_count);
  const GemmArgs args{activations.data(), plan.k,   bias ? bias->data() : nullptr, out.mutable_data(), plan.n,
                      first_row,          row_count};
  py::gil_scoped_release release;
  const std::lock_guard lock(runner.mutex);
  emulate_gemm(plan, weight, args, runner.context(seed, deterministic));
  return out;
}

Array<float> dequantize_array(const Plan& plan, const PackedWeight& weight, Runner& runner) {
  Array<float> out({plan.k, plan.n});
  float* values = out.mutable_data();
  py::gil_scoped_release release;
  const std::lock_guard lock(runner.mutex);
  dequantize_weight(plan, weight, runner.context(0, true), values);
  return out;
}

HalfWindow parse_window(const std::string& name) {
  if (name == "where_cheap") return HalfWindow::where_cheap;
  if (name == "always") return HalfWindow::always;
  require(name == "never", "half_window: expected where_cheap, always or never, found ", name);
  return HalfWindow::never;
}

/// float32 [leaf][m][n]: what the plan's leaves sum up to, before anything is added.
py::array_t<float> leaves(const Plan& plan, const PackedWeight& weight, const py::array& activations, Runner& runner,
                          const std::string& half_window) {
  check_gemm_arrays(plan, activations, std::nullopt);
  const HalfWindow window = parse_window(half_window);
  const size_t count = plan.trees.size() == 1 ? plan.trees[0].leaves.size() : 0;
  py::array_t<float> out({static_cast<py::ssize_t>(count), plan.m, plan.n});
  float* values = out.mutable_data();
  const GemmArgs args{activations.data(), plan.k, nullptr, nullptr, plan.n};
  py::gil_scoped_release release;
  const std::lock_guard lock(runner.mutex);
  ExecutorContext context = runner.context(0, true);
  context.window = window;
  emulate_leaves(plan, weight, args, context, values);
  return out;
}

py::dict explain(const Plan& plan, const PackedWeight& weight, const Array<uint16_t>& activations,
                 const Array<uint16_t>& outputs, const Array<uint8_t>& known, Runner& runner, int64_t tries,
                 uint64_t seed) {
  require_shape(activations, {plan.m, plan.k}, "activations");
  require_shape(outputs, {plan.m, plan.n}, "outputs");
  require_shape(known, {plan.n}, "known");
  require(tries >= 0, "tries must not be negative, got ", tries);
  require(plan.trees.size() == 1 && plan.trees[0].racing, plan.kernel, ": nothing races in this plan");
  const int64_t blocks = static_cast<int64_t>(plan.trees[0].leaves.size());
  RaceExplanation found;
  {
    py::gil_scoped_release release;
    const std::lock_guard lock(runner.mutex);
    const ExecutorContext context = runner.context(seed, true);
    std::vector<float> partials(static_cast<size_t>(blocks * plan.m * plan.n));
    emulate_leaves(plan, weight, {activations.data(), plan.k, nullptr, nullptr, plan.n}, context, partials.data());
    found = explain_race({plan.m, plan.n, blocks, partials.data(), outputs.data(), known.data(), tries, seed}, context);
  }
  const int64_t column_blocks = (plan.n + 63) / 64;
  py::array_t<uint8_t> reach({plan.m, plan.n});
  std::copy_n(reinterpret_cast<const uint8_t*>(found.reach.data()), found.reach.size(), reach.mutable_data());
  py::dict out;
  out["blocks"] = blocks;
  out["reach"] = reach;
  out["orders"] = py::none();
  out["first"] = py::none();
  if (found.exact) {
    out["orders"] = py::array_t<int64_t>({plan.m, column_blocks, int64_t{2}}, found.orders.data());
    out["first"] = py::array_t<int8_t>({plan.m, column_blocks, int64_t{2}, blocks}, found.first.data());
  }
  return out;
}

py::dict plan_tree(const Tree& tree) {
  py::list leaves, adds;
  for (const Leaf& leaf : tree.leaves) {
    py::list walks;
    for (const KWalk& walk : leaf.walks) walks.append(py::make_tuple(walk.start, walk.length, walk.stride, walk.count));
    leaves.append(walks);
  }
  for (const Add& add : tree.adds) adds.append(py::make_tuple(add.left, add.right));
  py::dict out;
  out["leaves"] = leaves;
  out["adds"] = adds;
  out["racing"] = tree.racing;
  return out;
}

void bind_plan(py::module_& m) {
  py::class_<DeviceNumbers>(m, "DeviceNumbers").def(py::init(&device_numbers), py::arg("numbers"));
  py::class_<Plan>(m, "KernelPlan")
      .def_readonly("kernel", &Plan::kernel)
      .def_readonly("sentence", &Plan::sentence)
      .def_readonly("m", &Plan::m)
      .def_readonly("n", &Plan::n)
      .def_readonly("k", &Plan::k)
      .def_readonly("group", &Plan::group)
      .def_readonly("facts", &Plan::facts)
      .def_readonly("unconfirmed", &Plan::unconfirmed)
      .def_property_readonly(
          "regions",
          [](const Plan& plan) {
            py::list out;
            for (const Region& r : plan.regions) {
              out.append(py::make_tuple(r.row_begin, r.row_end, r.column_begin, r.column_end, r.tree));
            }
            return out;
          })
      .def_property_readonly("trees",
                             [](const Plan& plan) {
                               py::list out;
                               for (const Tree& tree : plan.trees) out.append(plan_tree(tree));
                               return out;
                             })
      .def("describe", &describe);
  m.def(
      "make_plan",
      [](const std::string& kernel, int64_t m_, int64_t n, int64_t k, int64_t group, const std::string& format,
         const DeviceNumbers& device, const KernelOptions& options) {
        return make_plan(kernel, {m_, n, k, group, parse_format(format)}, device, options);
      },
      py::arg("kernel"), py::arg("m"), py::arg("n"), py::arg("k"), py::arg("group"), py::arg("format"),
      py::arg("device"), py::arg("options"));
}

}  // namespace

void bind_kernels(py::module_& m) {
  py::class_<KernelOptions>(m, "KernelOptions")
      .def(py::init<>())
      .def_readwrite("fp32_reduce", &KernelOptions::fp32_reduce)
      .def_readwrite("symmetric", &KernelOptions::symmetric)
      .def_readwrite("dense", &KernelOptions::dense)
      .def_readwrite("bias", &KernelOptions::bias)
      .def_readwrite("offsets", &KernelOptions::offsets)
      .def_readwrite("split", &KernelOptions::split)
      .def_readwrite("transposed", &KernelOptions::transposed)
      .def_readwrite("inner_k_tiles", &KernelOptions::inner_k_tiles)
      .def_readwrite("activation_group", &KernelOptions::activation_group);
  bind_plan(m);
  py::class_<PackedWeight>(m, "PackedWeight")
      .def_readonly("n", &PackedWeight::n)
      .def_readonly("k", &PackedWeight::k)
      .def_readonly("group", &PackedWeight::group)
      .def_property_readonly("nbytes", &PackedWeight::bytes)
      .def("copy", [](const PackedWeight& weight) { return PackedWeight(weight); });
  m.def("pack_codes", &pack_codes_array, py::arg("codes"), py::arg("zeros"), py::arg("scales"), py::arg("scale_format"),
        py::arg("group_size"), py::arg("offsets"), py::arg("group_index"));
  m.def("pack_dense", &pack_dense_array, py::arg("weight"), py::arg("format"));
  m.def("pack_dense", &pack_wide_array, py::arg("weight"));
  py::class_<Runner>(m, "KernelRunner").def(py::init<const std::string&, int>(), py::arg("isa"), py::arg("threads"));
  m.def("emulate_gemm", &emulate, py::arg("plan"), py::arg("weight"), py::arg("activations"), py::arg("bias"),
        py::arg("runner"), py::arg("seed"), py::arg("deterministic"), py::arg("rows") = py::none());
  m.def("emulate_leaves", &leaves, py::arg("plan"), py::arg("weight"), py::arg("activations"), py::arg("runner"),
        py::arg("half_window") = "where_cheap");
  m.def("dequantize_weight", &dequantize_array, py::arg("plan"), py::arg("weight"), py::arg("runner"));
  m.def("explain_race", &explain, py::arg("plan"), py::arg("weight"), py::arg("activations"), py::arg("outputs"),
        py::arg("known"), py::arg("runner"), py::arg("tries"), py::arg("seed"));
  m.def("kernel_table", [] {
    py::list out;
    for (const KernelInfo& info : kernel_table()) out.append(py::make_tuple(info.name, info.options, info.summary));
    return out;
  });
  m.def("variant_table", [] {
    py::list out;
    for (const VariantInfo& v : variant_table()) out.append(py::make_tuple(v.variant, v.gpu_class, v.engine, v.kernel));
    return out;
  });
  m.def(
      "resolve_variant",
      [](std::string_view variant, std::string_view gpu_class, std::string_view engine,
         std::optional<std::tuple<int64_t, int64_t, int64_t>> layer) {
        if (!layer) return resolve_variant(variant, gpu_class, engine);
        const LayerShape shape{std::get<0>(*layer), std::get<1>(*layer), std::get<2>(*layer)};
        return resolve_variant(variant, gpu_class, engine, &shape);
      },
      py::arg("variant"), py::arg("gpu_class"), py::arg("engine"), py::arg("layer") = py::none());
}

}  // namespace qf::bindings
