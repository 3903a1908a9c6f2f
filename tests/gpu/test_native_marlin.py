"""The native Marlin kernel against the CPU emulator and against recordings: every bit."""

from typing import Any

import numpy as np
import pytest

from gpu_problems import FAMILIES, as_bfloat16, assert_native_equals_cpu, problem
from qforensics import kernels
from qforensics.devices import device
from vector_cases import Case, assert_same_bits, cases, parameters

RECORDED = [case for file in ("gptq_marlin", "awq_marlin") for case in cases(file)]
ROWS = [1, 2, 3, 7, 8, 9, 15, 16, 17, 24, 25, 32, 33, 40, 48, 57, 64, 65, 100, 128, 130, 200]
# N, K: the three tiles of each list, K of one and a half tiles, few and many strips per multiprocessor
SHAPES = [(512, 1024), (640, 576), (192, 384), (1024, 256), (64, 128), (2048, 1536), (18432, 512)]


def inputs_of(
    family: str, m: int, n: int, k: int, group: int, *, symmetric: bool = False, dtype: str = "fp16", seed: int = 0
) -> tuple[Any, ...]:
    x, codes, zeros, scales = problem(family, m, n, k, group, seed)
    if symmetric:
        zeros = np.full_like(zeros, 8)
    if dtype == "bf16":
        x = as_bfloat16(family, x)
    return x, codes, zeros, scales


@pytest.mark.parametrize("case", parameters(RECORDED))
def test_recorded_bits(case: Case) -> None:
    call = {"group_size": case.group, "device": "h200", "executor": "native", **case.options}
    assert_same_bits(kernels.emulate(case.kernel, *case.inputs(), **call), case.outputs(), case)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("group", [-1, 32, 64, 128])
@pytest.mark.parametrize("m", ROWS)
def test_rows_and_groups(m: int, group: int, dtype: str, symmetric: bool) -> None:
    n, k = SHAPES[(m + group) % len(SHAPES)]
    group = 64 if group == 128 and k % 128 else group
    inputs = inputs_of("normal", m, n, k, group, symmetric=symmetric, dtype=dtype, seed=m)
    assert_native_equals_cpu("marlin", inputs, group_size=group, device="h200")


@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize("m", [1, 16, 31, 64])
@pytest.mark.parametrize("fp32_reduce", [True, False])
def test_shapes_and_reduction(n: int, k: int, m: int, fp32_reduce: bool) -> None:
    inputs = inputs_of("normal", m, n, k, 64, seed=n)
    assert_native_equals_cpu("marlin", inputs, group_size=64, device="h200", fp32_reduce=fp32_reduce)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("m", [1, 16, 64])
@pytest.mark.parametrize("group", [-1, 128])
def test_hard_numbers(family: str, dtype: str, m: int, group: int) -> None:
    inputs = inputs_of(family, m, 1024, 2048, group, dtype=dtype, seed=m)
    assert_native_equals_cpu("marlin", inputs, group_size=group, device="h200")


@pytest.mark.parametrize("group", [-1, 128])
@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_bias(group: int, dtype: str) -> None:
    inputs = inputs_of("normal", 20, 512, 1024, group, dtype=dtype)
    bias = np.random.default_rng(2).standard_normal(512).astype(inputs[0].dtype)
    without = assert_native_equals_cpu("marlin", inputs, group_size=group, device="h200")
    found = assert_native_equals_cpu("marlin", inputs, group_size=group, device="h200", bias=bias)
    assert (found.view(np.uint16) != without.view(np.uint16)).any()


@pytest.mark.parametrize(("n", "k"), [(6144, 4096), (4096, 4096), (24576, 4096), (4096, 12288)])
@pytest.mark.parametrize("m", [1, 16, 64])
def test_qwen3_8b(n: int, k: int, m: int) -> None:
    assert_native_equals_cpu("marlin", inputs_of("normal", m, n, k, 128, seed=m), group_size=128, device="h200")


def test_another_gpus_order() -> None:
    """108 SMs cut K elsewhere: the bits follow the plan, not the GPU."""
    inputs = inputs_of("normal", 16, 6144, 4096, 128)
    ours = assert_native_equals_cpu("marlin", inputs, group_size=128, device="h200")
    other = assert_native_equals_cpu("marlin", inputs, group_size=128, device=device("h200").ordered_as("a100"))
    assert (ours.view(np.uint16) != other.view(np.uint16)).any()


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize(("n", "k", "group"), [(512, 1024, 128), (640, 576, 64), (4096, 4096, -1), (18432, 512, 32)])
def test_one_order_for_every_batch(n: int, k: int, group: int, dtype: str) -> None:
    """marlin_invariant: a row's bits do not depend on the rows beside it; Marlin's do."""
    inputs = inputs_of("normal", 130, n, k, group, dtype=dtype)
    call: dict[str, Any] = {"group_size": group, "device": "h200"}
    together = assert_native_equals_cpu("marlin_invariant", inputs, **call).view(np.uint16)
    for rows in (slice(0, 1), slice(7, 23), slice(60, 124)):
        part = (inputs[0][rows], *inputs[1:])
        alone = kernels.emulate("marlin_invariant", *part, executor="native", **call).view(np.uint16)
        assert (alone == together[rows]).all()


def test_another_gpus_unit_is_refused() -> None:
    inputs = inputs_of("normal", 4, 512, 1024, 128)
    with pytest.raises(ValueError, match=r"marlin: the plan's unit fuses 8 products"):
        kernels.emulate("marlin", *inputs, group_size=128, device="a100", executor="native")


def test_act_order_is_refused() -> None:
    inputs = inputs_of("normal", 4, 512, 1024, 128)
    index = np.random.default_rng(1).permutation(np.repeat(np.arange(8, dtype=np.int32), 128))
    with pytest.raises(ValueError, match="act-order is not served natively"):
        kernels.emulate("marlin", *inputs, group_size=128, device="h200", group_index=index, executor="native")
