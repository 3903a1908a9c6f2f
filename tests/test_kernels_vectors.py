"""Emulated kernels against what the real ones answered on an H200: every case that does not race, every bit."""

import pytest

from qforensics import kernels
from vector_cases import FILES, Case, all_cases, assert_same_bits, cases, parameters

FIXED = [case for case in all_cases() if not case.outputs_that_vary]


@pytest.mark.parametrize("case", parameters(FIXED))
def test_recorded_bits(case: Case) -> None:
    activations, codes, zeros, scales = case.inputs()
    found = kernels.emulate(
        case.kernel, activations, codes, zeros, scales, group_size=case.group, device="h200", seed=1, **case.options
    )
    assert found.dtype == activations.dtype
    assert_same_bits(found, case.outputs(), case)


def test_nothing_was_left_out() -> None:
    assert {file: len(cases(file)) for file in FILES} == {
        "awq": 37, "awq_marlin": 92, "cublas": 28, "gptq": 45, "gptq_marlin": 92, "machete": 40, "pytorch_int4": 42,
    }  # fmt: skip
    assert len(FIXED) == 376 - 9  # nine cases race


@pytest.mark.parametrize("case", parameters([case for case in cases("cublas") if case.products < 10**10]))
def test_cublas_split_is_recorded_or_tried(case: Case) -> None:
    """Without the table: s = 1, 2, 3, 4 tried; exactly the kernels named splitK need more than one part."""
    activations, codes, zeros, scales = case.inputs()
    layout = case.options.get("layout", "kn")
    fits = []
    for split in (1, 2, 3, 4):
        found = kernels.emulate(
            "cublas", activations, codes, zeros, scales, group_size=128, device="h200", split=split, layout=layout
        )
        if (found.view("uint16")[:, :: case.column_step] == case.outputs()).all():
            fits.append(split)
    if any("splitK" in name for name in case.kernels):
        assert len(fits) == 1
        assert fits[0] > 1
    else:
        assert fits[0] == 1
        assert len(fits) == 1 or case.dtype == "bf16"  # few bf16 outputs show no order
