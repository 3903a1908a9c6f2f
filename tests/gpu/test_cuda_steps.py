"""Steps of matrix units on the GPU against the definition (csrc/numerics/matrix_unit.h), output by output.

QFORENSICS_STEP_OUTPUTS sets how many outputs each case takes; `make gpu-check` asks for enough to pass 1e9 in all.
"""

import os

import pytest

from qforensics import _core

OUTPUTS = int(float(os.environ.get("QFORENSICS_STEP_OUTPUTS", "1e6")))
INPUTS = ["plain", "wide", "any_finite", "cancelling", "sparse", "special"]
FP16, BF16 = -14, -126
HOPPER, A100, V100 = (16, 25, -133), (8, 24, -132), (4, 23, -131)
GRID_SCHEMES = ["fp64", "converted"]


def own_unit() -> tuple[int, int, int]:
    return (16, 25, -133) if _core.gpu_info(0)["compute_capability"] == 90 else (8, 24, -132)


def differing(unit: tuple[int, int, int], scheme: str, inputs: str, lowest: int, half: bool = False) -> int:
    products, fraction_bits, zero = unit
    call = (products, fraction_bits, zero, half, lowest, scheme, INPUTS.index(inputs), 7, OUTPUTS)
    outputs, wrong, expected, found = _core.step_test(*call)
    assert outputs >= OUTPUTS
    if wrong:
        print(f"{wrong} of {outputs} differ, one: {found:#010x} instead of {expected:#010x}")
    return int(wrong)


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("lowest", [FP16, BF16], ids=["fp16", "bf16"])
def test_the_gpu_is_its_profile(inputs: str, lowest: int) -> None:
    assert differing(own_unit(), "native", inputs, lowest) == 0


@pytest.mark.parametrize("inputs", INPUTS[:-1])
def test_its_fp16_accumulators_too(inputs: str) -> None:
    products, fraction_bits, _ = own_unit()
    assert differing((products, fraction_bits, 4 - fraction_bits), "native", inputs, FP16, half=True) == 0


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("lowest", [FP16, BF16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("unit", [A100, V100], ids=["a100", "v100"])
def test_pinned_steps_are_an_older_unit(unit: tuple[int, int, int], inputs: str, lowest: int) -> None:
    if own_unit()[0] != 16:
        pytest.skip("this GPU's unit has no free products")
    assert differing(unit, "pinned", inputs, lowest) == 0


@pytest.mark.parametrize("inputs", INPUTS[:-1])
@pytest.mark.parametrize("unit", [(8, 24, -20), (4, 23, -19)], ids=["a100", "v100"])
def test_pinned_fp16_accumulators(unit: tuple[int, int, int], inputs: str) -> None:
    if own_unit()[0] != 16:
        pytest.skip("this GPU's unit has no free products")
    assert differing(unit, "pinned", inputs, FP16, half=True) == 0


@pytest.mark.parametrize("unit", [(16, 24, -132), (8, 25, -133), (16, 26, -133)])
def test_another_unit_shows(unit: tuple[int, int, int]) -> None:
    """Negative control: the own instruction is no unit with other numbers."""
    assert differing(unit, "native", "wide", FP16) > 0


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("lowest", [FP16, BF16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("unit", [HOPPER, A100, V100, (16, 24, -132), (8, 25, -133)], ids=str)
@pytest.mark.parametrize("scheme", GRID_SCHEMES)
def test_sums_on_a_grid_are_any_unit(scheme: str, unit: tuple[int, int, int], lowest: int, inputs: str) -> None:
    assert differing(unit, scheme, inputs, lowest) == 0


@pytest.mark.parametrize("inputs", INPUTS[:-1])
@pytest.mark.parametrize("unit", [(16, 25, -21), (8, 24, -20), (4, 23, -19)], ids=["hopper", "a100", "v100"])
@pytest.mark.parametrize("scheme", GRID_SCHEMES)
def test_sums_on_a_grid_to_fp16(scheme: str, unit: tuple[int, int, int], inputs: str) -> None:
    assert differing(unit, scheme, inputs, FP16, half=True) == 0


def needs_wgmma() -> None:
    if _core.gpu_info(0)["compute_capability"] != 90:
        pytest.skip("wgmma belongs to compute capability 9.0")


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("lowest", [FP16, BF16], ids=["fp16", "bf16"])
def test_wgmma_is_the_profile_too(inputs: str, lowest: int) -> None:
    needs_wgmma()
    assert differing(HOPPER, "wgmma", inputs, lowest) == 0


@pytest.mark.parametrize("unit", [(16, 24, -132), (8, 25, -133), (16, 26, -133)])
def test_wgmma_is_no_other_unit(unit: tuple[int, int, int]) -> None:
    """Negative control."""
    needs_wgmma()
    assert differing(unit, "wgmma", "wide", FP16) > 0


def test_which_scheme_serves() -> None:
    """By compute capability; FP64 is slow on 8.6, 8.9 and 12.0."""
    chosen = {gpu: [_core.step_scheme(*unit[:2], gpu) for unit in (HOPPER, A100, V100)] for gpu in (80, 89, 90, 120)}
    assert chosen == {
        80: ["fp64", "native", "fp64"],
        89: ["converted", "native", "converted"],
        90: ["native", "pinned", "pinned"],
        120: ["converted", "converted", "converted"],
    }
    assert _core.step_scheme(16, 24, 90) == "fp64"
    assert _core.step_scheme(32, 13, 90) == _core.step_scheme(8, 30, 80) == "definition"


def test_units_without_a_form_are_refused() -> None:
    with pytest.raises(_core.CoreError, match="no sums on a grid for 8 products and 26 fraction bits"):
        differing((8, 26, -134), "fp64", "plain", FP16)


def test_a_faithful_gpu_is_accepted() -> None:
    _core.require_faithful_gpu(0)
