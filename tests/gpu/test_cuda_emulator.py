"""The CUDA emulator against the CPU emulator and against recordings: every bit."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from qforensics import _core, kernels, plans
from vector_cases import Case, all_cases, assert_same_bits, parameters

#: awq_dequantize is no GEMM: only the CPU runs it.
FIXED = [case for case in all_cases() if not case.outputs_that_vary and case.kernel != "awq_dequantize"]
FAMILIES = ["normal", "wide", "cancelling", "subnormal", "zeros", "special"]
NUMBERS = {"tinygemm": [ml_dtypes.bfloat16]}
NUMBERS |= {kernel: [np.float16, ml_dtypes.bfloat16] for kernel in ("marlin", "machete", "cublas")}
DEVICES = ["a100", "h200", "v100", "l40s"]


def activations_of(family: str, m: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """float16 rows that leave the fast path in as many ways as there are."""
    x = rng.standard_normal((m, k))
    if family == "wide":
        x *= 2.0 ** rng.integers(-18, 12, (m, k))
    elif family == "cancelling":
        x[:, 1::2] = -x[:, ::2] * (1 + 2.0**-9 * rng.integers(-1, 2, x[:, ::2].shape))
    elif family == "subnormal":
        x *= 2.0**-16
    elif family == "zeros":
        x[rng.random((m, k)) < 0.7] = 0
        x[:, : k // 2] = 0
    elif family == "special":
        x[rng.random((m, k)) < 1 / k] = np.inf
        x[rng.random((m, k)) < 0.2 / k] = np.nan
    with np.errstate(over="ignore"):
        return x.astype(np.float16)


def problem(family: str, m: int, n: int, k: int, group: int, seed: int) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    groups = 1 if group == -1 else k // group
    codes = rng.integers(0, 16, (k, n), dtype=np.uint8)
    zeros = rng.integers(6, 10, (groups, n), dtype=np.uint8)
    spread = 12 if family == "wide" else 2
    scales = (2.0 ** rng.uniform(-spread, 0, (groups, n)) * 0.02).astype(np.float16)
    return activations_of(family, m, k, rng), codes, zeros, scales


def assert_equal_bits(found: np.ndarray, wanted: np.ndarray) -> None:
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    bits = np.uint32 if found.dtype == np.float32 else np.uint16
    wrong = np.argwhere(found.view(bits) != wanted.view(bits))
    if len(wrong):
        at = tuple(wrong[0])
        pytest.fail(f"{len(wrong)} of {found.size} outputs differ, first at {at}: {found.view(bits)[at]:#x} "
                    f"instead of {wanted.view(bits)[at]:#x}")  # fmt: skip


@pytest.mark.parametrize("case", parameters(FIXED))
def test_recorded_bits(case: Case) -> None:
    found = kernels.emulate(
        case.kernel, *case.inputs(), group_size=case.group, device="h200", seed=1, executor="cuda", **case.options
    )
    assert_same_bits(found, case.outputs(), case)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("m", [1, 7, 16, 33, 130])
def test_marlin_equals_the_cpu(family: str, device: str, m: int) -> None:
    inputs = problem(family, m, 512, 1024, 128, m)
    call = {"group_size": 128, "device": device, "seed": 3}
    wanted = kernels.emulate("marlin", *inputs, **call)
    assert_equal_bits(kernels.emulate("marlin", *inputs, executor="cuda", **call), wanted)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("device", ["a100", "h200"])
@pytest.mark.parametrize("kernel", ["marlin", "tinygemm", "cublas"])
@pytest.mark.parametrize("m", [1, 20])
def test_bf16_equals_the_cpu(family: str, device: str, kernel: str, m: int) -> None:
    x, codes, zeros, scales = problem(family, m, 256, 1024, 128, m)
    if family == "wide":  # bf16 has room for more
        x = x.astype(np.float32) * 2.0 ** np.random.default_rng(5).integers(-90, 60, x.shape)
    x = x.astype(ml_dtypes.bfloat16)
    call = {"group_size": 128, "device": device, "seed": 3}
    wanted = kernels.emulate(kernel, x, codes, zeros, scales, **call)
    assert_equal_bits(kernels.emulate(kernel, x, codes, zeros, scales, executor="cuda", **call), wanted)


KERNELS = ["awq", "machete", "exllama", "cublas", "hgemm", "fp32", "openvino"]
#: Machete is a Hopper kernel.
PAIRS = [(k, device) for k in KERNELS for device in ("a100", "h200") if (k, device) != ("machete", "a100")]


@pytest.mark.parametrize(("kernel", "device"), PAIRS)
@pytest.mark.parametrize("m", [1, 9, 40, 64, 300])
@pytest.mark.parametrize("family", ["normal", "wide", "special"])
def test_other_kernels_equal_the_cpu(kernel: str, m: int, family: str, device: str) -> None:
    inputs = problem(family, m, 512, 512, 128, m + 1)
    if kernel in ("fp32", "openvino"):
        inputs = (inputs[0].astype(np.float32), *inputs[1:])
    options = {"activation_group": 128} if kernel == "openvino" and family == "normal" else {}
    call = {"group_size": 128, "device": device, "seed": 3, **options}
    wanted = kernels.emulate(kernel, *inputs, **call)
    assert_equal_bits(kernels.emulate(kernel, *inputs, executor="cuda", **call), wanted)


def both(kernel: str, *inputs: Any, **call: Any) -> np.ndarray:
    """The GPU's outputs, which are the CPU's."""
    call = {"seed": 3, **call}
    found = kernels.emulate(kernel, *inputs, executor="cuda", **call)
    assert_equal_bits(found, kernels.emulate(kernel, *inputs, **call))
    return found


@pytest.mark.parametrize("kernel", ["marlin", "machete", "awq", "exllama", "cublas", "hgemm", "tinygemm"])
@pytest.mark.parametrize("group", [128, -1])
@pytest.mark.parametrize("m", [1, 20, 300])
def test_bias(kernel: str, group: int, m: int) -> None:
    """Each of the epilogue's rules: marlin fuses the channel scale with it, awq has another from 256 rows on."""
    x, *weight = problem("normal", m, 256, 512, group, m)
    bias = np.random.default_rng(m).standard_normal(256).astype(np.float16)
    for number in NUMBERS.get(kernel, [np.float16]):
        call = {"group_size": group, "device": "h200"}
        with_bias = both(kernel, x.astype(number), *weight, bias=bias.astype(number), **call)
        assert (with_bias != both(kernel, x.astype(number), *weight, **call)).any()


@pytest.mark.parametrize("kernel", ["marlin", "exllama", "cublas", "hgemm"])
@pytest.mark.parametrize("m", [5, 60])
def test_activation_order(kernel: str, m: int) -> None:
    """Some kernels multiply in the sorted order of K, some in the file's."""
    index = np.random.default_rng(1).permutation(np.repeat(np.arange(8, dtype=np.int32), 64))
    both(kernel, *problem("normal", m, 256, 512, 64, m), group_size=64, device="h200", group_index=index)


@pytest.mark.parametrize("m", [1, 20, 300])
@pytest.mark.parametrize("special", [False, True])
def test_fp32_weights(m: int, special: bool) -> None:
    """Dense weights that no 16-bit format holds."""
    rng = np.random.default_rng(m)
    x, weight = (rng.standard_normal(shape).astype(np.float32) for shape in ((m, 512), (192, 512)))
    if special:
        x[0, 3], weight[5, 7], weight[6, 7] = np.nan, np.inf, -np.inf
        x[-1, 7] = np.inf
    options = _core.KernelOptions()
    options.dense = True
    plan = plans.make_plan("fp32", (m, 192, 512), -1, "h200", "fp32", options)._core_plan
    packed, runner = _core.pack_dense(weight), _core.KernelRunner(_core.best_isa(), 4)
    wanted = _core.emulate_gemm(plan, packed, x, None, runner, 0, True)
    found = _core.emulate_gemm_cuda(plan, packed, x, None, 0, True, None, _core.default_workspace)
    assert_equal_bits(found, wanted)
    assert np.isnan(wanted).any() == special


@pytest.mark.parametrize("seed", [0, 1])
def test_racing_orders_are_drawn_alike(seed: int) -> None:
    inputs = problem("normal", 5, 1024, 2048, 128, seed)
    call = {"group_size": 128, "device": "h200"}
    wanted = kernels.emulate("exllama", *inputs, seed=seed, **call)
    assert_equal_bits(kernels.emulate("exllama", *inputs, seed=seed, executor="cuda", **call), wanted)
    fixed = kernels.emulate("exllama", *inputs, deterministic=True, **call)
    assert_equal_bits(kernels.emulate("exllama", *inputs, deterministic=True, executor="cuda", **call), fixed)
    assert (fixed.view(np.uint16) != wanted.view(np.uint16)).any()


def test_another_scheme_gives_the_same_bits() -> None:
    inputs = problem("wide", 12, 256, 512, 128, 8)
    call = {"group_size": 128, "device": "a100", "executor": "cuda", "seed": 0}
    fast = kernels.emulate("cublas", *inputs, scheme="pinned", **call)
    assert_equal_bits(kernels.emulate("cublas", *inputs, scheme="definition", **call), fast)


def test_the_wrong_unit_shows() -> None:
    """Negative control: the GPU's own steps are not an A100's."""
    inputs = problem("normal", 64, 512, 2048, 128, 4)
    call = {"group_size": 128, "device": "a100", "executor": "cuda", "seed": 0}
    right = kernels.emulate("cublas", *inputs, **call)
    wrong = kernels.emulate("cublas", *inputs, scheme="native", **call)
    assert (right.view(np.uint16) != wrong.view(np.uint16)).any()


def test_small_workspace_and_act_order() -> None:
    inputs = problem("normal", 200, 512, 1024, 128, 6)
    index = np.random.default_rng(1).permutation(np.repeat(np.arange(8, dtype=np.int32), 128))
    call = {"group_size": 128, "device": "a100", "group_index": index, "seed": 0}
    wanted = kernels.emulate("marlin", *inputs, **call)
    assert_equal_bits(kernels.emulate("marlin", *inputs, executor="cuda", **call), wanted)
