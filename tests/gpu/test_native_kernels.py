"""Native kernels against the CPU emulator and against recordings: every bit."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from gpu_problems import FAMILIES, as_bfloat16, assert_equal_bits, assert_native_equals_cpu, problem
from qforensics import _core, kernels, plans
from vector_cases import Case, all_cases, assert_same_bits, parameters

DTYPE = {"awq": "fp16", "exllama": "fp16", "tinygemm": "bf16"}
RECORDED = [case for case in all_cases() if case.kernel in ("awq", "pytorch_int4", "gptq") and case.M <= 50]
MULTIPLE = {"awq": (64, 32), "exllama": (8, 8), "tinygemm": (8, 16)}  # of N, of K


def inputs_for(kernel: str, family: str, m: int, n: int, k: int, group: int, seed: int) -> tuple[Any, ...]:
    x, codes, zeros, scales = problem(family, m, n, k, group, seed)
    if DTYPE[kernel] == "bf16":
        x = as_bfloat16(family, x)
    return x, codes, zeros, scales


def assert_native_equals_h200(kernel: str, inputs: tuple[Any, ...], group: int, **call: Any) -> np.ndarray:
    return assert_native_equals_cpu(kernel, inputs, **{"group_size": group, "device": "h200", "seed": 7, **call})


@pytest.mark.parametrize("case", parameters(RECORDED))
def test_recorded_bits(case: Case) -> None:
    if case.outputs_that_vary:
        assert_native_equals_h200(case.kernel, case.inputs(), case.group, deterministic=True, **case.options)
        return
    call = {"group_size": case.group, "device": "h200", "seed": 1, **case.options}
    assert_same_bits(kernels.emulate(case.kernel, *case.inputs(), executor="native", **call), case.outputs(), case)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kernel", DTYPE)
@pytest.mark.parametrize("m", [1, 3, 8, 9, 16, 31, 50])
def test_rows(kernel: str, family: str, m: int) -> None:
    assert_native_equals_h200(kernel, inputs_for(kernel, family, m, 320, 1536, 128, m), 128)


@pytest.mark.parametrize("kernel", DTYPE)
@pytest.mark.parametrize("group", [32, 64, 128, -1])
@pytest.mark.parametrize(("n", "k"), [(64, 128), (192, 512), (576, 1152), (4096, 256), (128, 4096), (64, 12288)])
@pytest.mark.parametrize("m", [2, 20])
def test_shapes_and_groups(kernel: str, group: int, n: int, k: int, m: int) -> None:
    assert_native_equals_h200(kernel, inputs_for(kernel, "normal", m, n, k, group, n + k), group)


@pytest.mark.parametrize("kernel", DTYPE)
@pytest.mark.parametrize("m", [1, 12, 48])
def test_smallest_multiples(kernel: str, m: int) -> None:
    n, k = MULTIPLE[kernel]
    for columns, depth in [(n, k), (3 * n, 5 * k), (7 * n, 37 * k), (5 * n, 67 * k)]:
        assert_native_equals_h200(kernel, inputs_for(kernel, "wide", m, columns, depth, -1, depth), -1)


@pytest.mark.parametrize("kernel", ["awq", "tinygemm"])
@pytest.mark.parametrize("m", [64, 65, 130, 255])
def test_many_rows(kernel: str, m: int) -> None:
    assert_native_equals_h200(kernel, inputs_for(kernel, "normal", m, 256, 1024, 128, m), 128)


@pytest.mark.parametrize("kernel", DTYPE)
@pytest.mark.parametrize(
    ("m", "n", "k"),
    [(1, 24576, 512), (2, 24576, 512), (4, 6144, 4096), (8, 4096, 12288), (16, 6144, 1024), (20, 4096, 4096),
     (32, 24576, 512), (33, 24576, 640), (40, 6144, 512), (50, 4096, 1024)],
)  # fmt: skip
def test_every_tile(kernel: str, m: int, n: int, k: int) -> None:
    """Which tile of rows and columns a kernel takes depends on how many blocks there are."""
    assert_native_equals_h200(kernel, inputs_for(kernel, "normal", m, n, k, 128, m), 128)


def test_racing_orders_of_many_rows() -> None:
    assert_native_equals_h200("exllama", inputs_for("exllama", "normal", 16, 24576, 1024, 128, 1), 128, seed=11)


@pytest.mark.parametrize("kernel", DTYPE)
def test_scales_that_are_no_numbers(kernel: str) -> None:
    x, codes, zeros, scales = inputs_for(kernel, "normal", 20, 256, 1024, 64, 3)
    scales[3, 7], scales[2, 100], scales[9, 40:60], scales[5, 200] = np.inf, np.nan, 2.0**-24, -65504
    assert_native_equals_h200(kernel, (x, codes, zeros, scales), 64)


@pytest.mark.parametrize("kernel", DTYPE)
def test_bias(kernel: str) -> None:
    inputs = inputs_for(kernel, "normal", 9, 128, 1024, 128, 4)
    bias = np.random.default_rng(2).standard_normal(128).astype(inputs[0].dtype)
    assert_native_equals_h200(kernel, inputs, 128, bias=bias)


@pytest.mark.parametrize("inner_k_tiles", [2, 4, 8])
@pytest.mark.parametrize("k", [1024 + 32, 2048 + 64, 896 + 112])
def test_what_whole_chunks_of_tinygemm_leave_over(inner_k_tiles: int, k: int) -> None:
    inputs = inputs_for("tinygemm", "normal", 17, 64, k, -1, k)
    assert_native_equals_h200("tinygemm", inputs, -1, inner_k_tiles=inner_k_tiles)


def test_stored_offsets_of_tinygemm() -> None:
    x, codes, zeros, scales = inputs_for("tinygemm", "normal", 5, 128, 1024, 128, 6)
    offsets = np.random.default_rng(3).standard_normal(scales.shape).astype(ml_dtypes.bfloat16).astype(np.float32)
    eight = np.full_like(zeros, 8)
    assert_native_equals_h200("tinygemm", (x, codes, eight, scales), 128, offsets=offsets)
    with pytest.raises(ValueError, match="float offsets"):
        kernels.emulate("tinygemm", x, codes, eight, scales, group_size=128, device="h200", executor="native",
                        offsets=offsets * np.float32(1 + 2.0**-12))  # fmt: skip


@pytest.mark.parametrize("m", [1, 6])
def test_racing_orders_are_those_of_the_seed(m: int) -> None:
    inputs = inputs_for("exllama", "normal", m, 320, 4096, 128, m)
    drawn = assert_native_equals_h200("exllama", inputs, 128, seed=5)
    ordered = assert_native_equals_h200("exllama", inputs, 128, deterministic=True)
    other = assert_native_equals_h200("exllama", inputs, 128, seed=6)
    assert (drawn.view(np.uint16) != ordered.view(np.uint16)).any()
    assert (drawn.view(np.uint16) != other.view(np.uint16)).any()


def test_act_order() -> None:
    inputs = inputs_for("exllama", "normal", 6, 256, 1024, 128, 6)
    index = np.random.default_rng(1).permutation(np.repeat(np.arange(8, dtype=np.int32), 128))
    assert_native_equals_h200("exllama", inputs, 128, group_index=index)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize(
    ("m", "n", "k", "group"),
    [(1, 64, 64, 32), (130, 200, 456, 8), (300, 520, 1024, 128), (64, 256, 2048, -1), (257, 16896, 256, 64)],
)  # fmt: skip
def test_one_walk(family: str, dtype: Any, m: int, n: int, k: int, group: int) -> None:
    x, *weight = problem(family, m, n, k, group, m)
    assert_native_equals_h200("cublas", (x.astype(dtype), *weight), group, split=1)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize(
    ("m", "n", "k"),
    [(1, 64, 64), (1, 4099, 456), (3, 40000, 72), (8, 17, 4096), (9, 2200, 4096), (16, 5000, 4096), (16, 300, 5128),
     (2, 150000, 128)],
)  # fmt: skip
def test_one_walk_over_numbers_for_few_rows(m: int, n: int, k: int, dtype: str, bias: bool) -> None:
    """Panels and rounds of every kind, K of half a step, rows that end inside a tile; infinities and NaN among them."""
    rng = np.random.default_rng(n + k)
    number = np.float16 if dtype == "fp16" else ml_dtypes.bfloat16
    x = (rng.standard_normal((m, k)) * 2.0 ** rng.integers(-6, 6, (m, k))).astype(number)
    table = (rng.standard_normal((n, k)) * 2.0 ** rng.integers(-6, 3, (n, k))).astype(number)
    table[5, 3], table[n - 1, k - 1], x[m - 1, k // 2] = np.inf, np.nan, -0.0
    options = _core.KernelOptions()
    options.dense, options.bias, options.transposed = True, bias, True
    addend = rng.standard_normal(n).astype(number).view(np.uint16) if bias else None
    plan = plans.make_plan("cublas", (m, n, k), -1, "h200", dtype, options)._core_plan
    weight = _core.pack_dense(table.view(np.uint16), dtype)
    call = (plan, weight, x.view(np.uint16), addend)
    wanted = _core.emulate_gemm_cuda(*call, 0, False, None, _core.default_workspace)
    assert_equal_bits(_core.emulate_gemm_native(*call, 0, False), wanted)
    backwards = _core.emulate_gemm_native(
        plan, weight, np.ascontiguousarray(x[:, ::-1]).view(np.uint16), addend, 0, False
    )
    assert (backwards != wanted).any()


def test_awq_from_256_rows() -> None:
    inputs = problem("normal", 256, 512, 1024, 128, 1)
    bias = np.random.default_rng(2).standard_normal(512).astype(np.float16)
    assert_native_equals_h200("awq", inputs, 128)
    assert_native_equals_h200("awq", inputs, 128, bias=bias)
    assert_native_equals_h200("cublas", inputs, 128, split=1, bias=bias)


def test_split_walks_are_refused() -> None:
    inputs = problem("normal", 16, 512, 1024, 128, 1)
    with pytest.raises(ValueError, match="one_walk: the plan adds in another order"):
        kernels.emulate("cublas", *inputs, group_size=128, device="h200", split=2, executor="native")


def test_another_order_shows() -> None:
    """Negative control: one walk, or contiguous parts, in place of a kernel's slices."""
    inputs = inputs_for("awq", "normal", 32, 512, 4096, 128, 4)
    native = kernels.emulate("awq", *inputs, group_size=128, device="h200", executor="native")
    for split in (1, 8):
        other = kernels.emulate("cublas", *inputs, group_size=128, device="h200", split=split)
        assert (native.view(np.uint16) != other.view(np.uint16)).any()


def test_other_units_and_plans_are_refused() -> None:
    inputs = inputs_for("awq", "normal", 2, 64, 256, 128, 1)
    with pytest.raises(ValueError, match="fuses 8 products with 24 fraction bits, this GPU's 16 with 25"):
        kernels.emulate("awq", *inputs, group_size=128, device="a100", executor="native")
    plan = plans.make_plan("awq", (2, 64, 256), 128, "a100", "fp16", _core.KernelOptions())
    assert _core.native_kernel_for(plan._core_plan, 80)[0] == "awq"
    assert _core.native_kernel_for(plan._core_plan, 75)[0] is None
