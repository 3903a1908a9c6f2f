"""The CUDA emulator against the CPU emulator and against recordings: every bit."""

import ml_dtypes
import numpy as np
import pytest

from gpu_problems import FAMILIES, assert_equal_bits, problem
from qforensics import kernels
from vector_cases import Case, all_cases, assert_same_bits, parameters

FIXED = [case for case in all_cases() if not case.outputs_that_vary]
DEVICES = ["a100", "h200", "v100", "l40s"]


@pytest.mark.parametrize("case", parameters(FIXED))
def test_recorded_bits(case: Case) -> None:
    found = kernels.emulate(
        case.kernel, *case.inputs(), group_size=case.group, device="h200", seed=1, executor="cuda", **case.options
    )
    if case.kernel == "awq_dequantize":
        pytest.skip("no GEMM: dequantized by the host")
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


@pytest.mark.parametrize("kernel", ["awq", "machete", "exllama", "cublas", "hgemm", "fp32", "openvino"])
@pytest.mark.parametrize("m", [1, 9, 40, 64, 300])
@pytest.mark.parametrize("family", ["normal", "wide", "special"])
@pytest.mark.parametrize("device", ["a100", "h200"])
def test_other_kernels_equal_the_cpu(kernel: str, m: int, family: str, device: str) -> None:
    if kernel == "machete" and device != "h200":
        pytest.skip("Machete is a Hopper kernel")
    inputs = problem(family, m, 512, 512, 128, m + 1)
    if kernel in ("fp32", "openvino"):
        inputs = (inputs[0].astype(np.float32), *inputs[1:])
    options = {"activation_group": 128} if kernel == "openvino" and family == "normal" else {}
    call = {"group_size": 128, "device": device, "seed": 3, **options}
    wanted = kernels.emulate(kernel, *inputs, **call)
    assert_equal_bits(kernels.emulate(kernel, *inputs, executor="cuda", **call), wanted)


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
