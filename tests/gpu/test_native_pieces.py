"""The native kernels of pieces of K, machete and hgemm, against the CPU emulator and against recordings: every bit."""

from typing import Any

import numpy as np
import pytest

from gpu_problems import FAMILIES, as_bfloat16, assert_native_equals_cpu, problem
from qforensics import _core, kernels, plans
from test_recorded_shapes import GEMMS, gemm_differing
from vector_cases import Case, all_cases, assert_same_bits, parameters

RECORDED = [case for case in all_cases() if case.kernel == "machete" or (case.kernel == "gptq" and case.M > 50)]
SHAPES = [name for name, case in GEMMS.items() if case["kernel"] == "machete" and case["M"] * case["N"] < 2e7]
# N, K: fewer and more column tiles than multiprocessors, whole walks, split-K, stream-K, groups of units
SIZES = [(128, 64), (384, 640), (768, 1536), (1280, 768), (4096, 1024), (6144, 1024), (24576, 576), (512, 12288)]
ROWS = [1, 2, 8, 9, 16, 17, 31, 33, 48, 64, 65, 100, 128, 129, 200, 256, 257, 300, 513]


def inputs_of(
    family: str, m: int, n: int, k: int, group: int, *, symmetric: bool = False, dtype: str = "fp16", seed: int = 0
) -> tuple[Any, ...]:
    x, codes, zeros, scales = problem(family, m, n, k, group, seed)
    zeros = np.full_like(zeros, 8) if symmetric else np.random.default_rng(seed).integers(0, 16, zeros.shape, np.uint8)
    if dtype == "bf16":
        x = as_bfloat16(family, x)
    return x, codes, zeros, scales


def assert_native_equals_h200(kernel: str, inputs: tuple[Any, ...], group: int, **call: Any) -> np.ndarray:
    return assert_native_equals_cpu(kernel, inputs, **{"group_size": group, "device": "h200", **call})


@pytest.mark.parametrize("case", parameters(RECORDED))
def test_recorded_bits(case: Case) -> None:
    call = {"group_size": case.group, "device": "h200", "executor": "native", **case.options}
    assert_same_bits(kernels.emulate(case.kernel, *case.inputs(), **call), case.outputs(), case)


@pytest.mark.parametrize("name", SHAPES)
def test_recorded_bits_of_other_shapes(name: str) -> None:
    assert gemm_differing(GEMMS[name], "h200", "native") == 0


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize(("n", "k"), SIZES)
@pytest.mark.parametrize("m", ROWS)
def test_machete(m: int, n: int, k: int, dtype: str) -> None:
    group = (128, 64, -1)[m % 3] if k % 128 == 0 else 64
    symmetric = (m + k // 64) % 2 == 0
    inputs = inputs_of("normal", m, n, k, group, symmetric=symmetric, dtype=dtype, seed=m)
    assert_native_equals_h200("machete", inputs, group, symmetric=symmetric)


@pytest.mark.parametrize("split", [0, 1, 3, 8])
@pytest.mark.parametrize(("n", "k"), [*SIZES, (200, 1024), (72, 512)])
@pytest.mark.parametrize("m", [16, 51, 64, 128, 200, 300])
def test_hgemm(m: int, n: int, k: int, split: int) -> None:
    group = (128, 64, -1)[m % 3] if k % 128 == 0 else 64
    inputs = inputs_of("normal", m, n, k, group, symmetric=m == 64, seed=m)
    assert_native_equals_h200("hgemm", inputs, group, split=split)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("m", [1, 16, 64, 130, 260])
def test_hard_numbers(family: str, symmetric: bool, m: int) -> None:
    for dtype in ("fp16", "bf16"):
        inputs = inputs_of(family, m, 512, 2048, 128, symmetric=symmetric, dtype=dtype, seed=m)
        assert_native_equals_h200("machete", inputs, 128, symmetric=symmetric)
    inputs = inputs_of(family, m, 512, 2048, 128, symmetric=symmetric, seed=m)
    assert_native_equals_h200("hgemm", inputs, 128, split=4)


@pytest.mark.parametrize(("kernel", "dtype"), [("machete", "fp16"), ("machete", "bf16"), ("hgemm", "fp16")])
def test_scales_that_are_no_numbers(kernel: str, dtype: str) -> None:
    for symmetric in (True, False):
        x, codes, zeros, scales = inputs_of("normal", 70, 256, 1024, 64, symmetric=symmetric, dtype=dtype, seed=3)
        scales[3, 7], scales[2, 100], scales[9, 40:60], scales[5, 200] = np.inf, np.nan, 2.0**-24, -65504
        assert_native_equals_h200(kernel, (x, codes, zeros, scales), 64, symmetric=symmetric)


@pytest.mark.parametrize("device", ["h100 pcie", "h100 sxm"])
@pytest.mark.parametrize("m", [1, 40, 100, 300])
def test_partitions_of_other_devices(device: str, m: int) -> None:
    assert_native_equals_h200("machete", inputs_of("normal", m, 4096, 2048, 128, seed=m), 128, device=device)


def test_bias_of_hgemm() -> None:
    inputs = inputs_of("normal", 90, 384, 1024, 128)
    bias = np.random.default_rng(2).standard_normal(384).astype(np.float16)
    assert_native_equals_h200("hgemm", inputs, 128, bias=bias, split=2)
    assert_native_equals_h200("exllama", inputs, 128, bias=bias)


def test_another_order_shows() -> None:
    """Negative control: the pieces of another number of multiprocessors, another number of parts."""
    inputs = inputs_of("normal", 16, 4096, 4096, 128)
    native = kernels.emulate("machete", *inputs, group_size=128, device="h200", executor="native")
    other = kernels.emulate("machete", *inputs, group_size=128, device="h100 pcie")
    assert (native.view(np.uint16) != other.view(np.uint16)).any()
    native = kernels.emulate("hgemm", *inputs, group_size=128, device="h200", executor="native", split=4)
    other = kernels.emulate("hgemm", *inputs, group_size=128, device="h200", split=1)
    assert (native.view(np.uint16) != other.view(np.uint16)).any()


def test_what_is_refused() -> None:
    def refusal(kernel: str, device: str, capability: int) -> str:
        plan = plans.make_plan(kernel, (64, 256, 512), 128, device, "fp16", _core.KernelOptions())
        name, why = _core.native_kernel_for(plan._core_plan, capability)
        assert name is None
        return str(why)

    assert "fuses 8 products with 24 fraction bits, this GPU's 16 with 25" in refusal("machete", "a100", 90)
    assert "needs compute capability 90, the GPU has 80" in refusal("hgemm", "h200", 80)
    inputs = inputs_of("normal", 64, 256, 1024, 128)
    index = np.random.default_rng(1).permutation(np.repeat(np.arange(8, dtype=np.int32), 128))
    with pytest.raises(ValueError, match="act-order is not served natively"):
        kernels.emulate("hgemm", *inputs, group_size=128, device="h200", executor="native", group_index=index)
