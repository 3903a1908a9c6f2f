"""Negative controls: one thing changed must change bits, else the vectors would prove nothing.

The counts in the comments are those of the facts page for all recorded outputs; here a few sharp cases suffice.
"""

from typing import Any

import numpy as np
import pytest

from qforensics import _core, kernels, plans
from qforensics.devices import device
from vector_cases import Case, cases


def case_of(file: str, **wanted: Any) -> Case:
    for case in cases(file):
        if all(getattr(case, key) == value for key, value in wanted.items()) and "fp32_reduce" not in case.record:
            return case
    raise LookupError(f"{file}: no case {wanted}")


def wrong_outputs(case: Case, *, numbers: dict[str, Any] | None = None, **options: Any) -> int:
    """Outputs that differ from the recording when the device's numbers or an option are others."""
    activations, codes, zeros, scales = case.inputs()
    dtype, name = case.dtype, plans.kernel_name(case.kernel)
    chosen = plans.kernel_options(case.kernel, name, {**case.options, **options})
    changed = {**kernels.device_numbers("h200"), **(numbers or {})}
    plan = _core.make_plan(name, case.M, case.N, case.K, case.group, dtype, _core.DeviceNumbers(changed), chosen)
    weight = kernels._pack_codes(codes, zeros, scales, dtype, case.group, None, None)
    found = _core.emulate_gemm(plan, weight, activations.view(np.uint16), None, kernels._runner(None, None), 0, True)
    return int((found[:, :: case.column_step] != case.outputs()).sum())


AMPERE = {"fp16": (8, 24, -132), "bf16": (8, 24, -132), "fp16_out": (8, 24, -20)}
SHARP = {
    "awq": case_of("awq", M=16, K=4096),
    "marlin": case_of("gptq_marlin", M=16, K=4096, N=6144),
    "machete": case_of("machete", M=16, K=4096, N=4096),
    "cublas": case_of("cublas", M=64, K=4096, N=4096),
    "hgemm": case_of("gptq", M=128, K=4096),
    "tinygemm": case_of("pytorch_int4", M=64, K=12288),
}


@pytest.mark.parametrize("name", SHARP)
def test_the_control_itself_is_exact(name: str) -> None:
    assert wrong_outputs(SHARP[name]) == 0


@pytest.mark.parametrize("name", [name for name in SHARP if name != "tinygemm"])
def test_another_matrix_unit_changes_bits(name: str) -> None:
    assert wrong_outputs(SHARP[name], numbers=AMPERE) > 0


def test_another_matrix_unit_changes_bits_even_of_tinygemm() -> None:
    """bf16 hides nearly everything: 6 of 302,464 recorded outputs show it."""
    assert sum(wrong_outputs(case, numbers=AMPERE) for case in cases("pytorch_int4") if case.K >= 4096) > 0


@pytest.mark.parametrize(("name", "m"), [("gptq_marlin", 64), ("awq_marlin", 16), ("machete", 17)])
def test_another_sm_count_changes_bits(name: str, m: int) -> None:
    large = [case for case in cases(name) if case.K >= 4096 and case.M in (m,)]
    assert sum(wrong_outputs(case, numbers={"sm_count": 108}) for case in large) > 0


def test_another_split_changes_bits() -> None:
    split3 = case_of("cublas", M=8, K=12288)
    assert wrong_outputs(split3, split=3) == 0
    assert wrong_outputs(split3, split=2) > 0
    assert wrong_outputs(split3, split=4) > 0
    assert wrong_outputs(split3, split=1) > 0
    assert wrong_outputs(SHARP["cublas"], split=2) > 0
    assert wrong_outputs(SHARP["hgemm"], split=8) == 0
    assert wrong_outputs(SHARP["hgemm"], split=7) > 0


def test_another_tree_changes_bits() -> None:
    """Marlin's order for awq's sums, Machete's for Marlin's, fp16 instead of fp32 partials."""
    awq, marlin = SHARP["awq"], SHARP["marlin"]
    as_marlin = Case(awq.file, {**awq.record, "kernel": "awq_marlin"})
    assert wrong_outputs(as_marlin) > 100
    as_machete = Case(marlin.file, {**marlin.record, "kernel": "machete"})
    assert wrong_outputs(as_machete) > 0
    assert wrong_outputs(marlin, fp32_reduce=False) > 100


def test_a100_differs_from_h200_but_little() -> None:
    """What the whole project is about: the same kernel on two GPUs differs, in few bits."""
    case = SHARP["marlin"]
    inputs = case.inputs()
    h200, a100 = (
        kernels.emulate("gptq_marlin", *inputs, group_size=128, device=name).view(np.uint16)
        for name in ("h200", "a100")
    )
    different = (h200 != a100).mean()
    assert 0 < different < 0.02
    assert device("a100").sm_count == 108
