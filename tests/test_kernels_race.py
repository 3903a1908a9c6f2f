"""Racing fp16 atomics of exllama: recorded outputs explained, wrong ones refuted, seeded and canonical order."""

import numpy as np
import pytest

from qforensics import kernels
from vector_cases import Case, assert_same_bits, cases, differing, parameters

RACING = [case for case in cases("gptq") if case.outputs_that_vary]


def explain(case: Case, outputs: np.ndarray) -> kernels.RaceExplanation:
    columns = np.arange(0, case.N, case.column_step)
    activations, codes, zeros, scales = case.inputs()
    return kernels.explain_race(
        activations, codes, zeros, scales, outputs.view(np.float16), group_size=case.group, columns=columns
    )


@pytest.mark.parametrize("case", parameters(RACING))
def test_recorded_outputs_are_explained(case: Case) -> None:
    """Up to 8 blocks by one order per (row, 64 columns, parity); with 32 every output alone is reachable."""
    found = explain(case, case.outputs())
    assert found.explained, repr(found)
    assert (found.orders is None) == (case.K > 1024)
    if found.orders is not None:
        assert (found.orders > 0).all()


@pytest.mark.parametrize("case", parameters([case for case in RACING if case.K == 1024]))
def test_found_order_gives_the_outputs(case: Case) -> None:
    """The order named for a unit, applied to independently made partials, is the recorded output."""
    activations, codes, zeros, scales = case.inputs()
    found = explain(case, case.outputs())
    assert found.first is not None
    per_block = case.K // case.group // found.blocks
    partials = np.stack(
        [
            kernels.emulate(
                "gptq", activations[:, b * 128 : b * 128 + 128], codes[b * 128 : b * 128 + 128],
                zeros[b * per_block : (b + 1) * per_block], scales[b * per_block : (b + 1) * per_block],
                group_size=case.group, device="h200", deterministic=True,
            )
            for b in range(found.blocks)
        ]
    )  # fmt: skip
    column = np.arange(case.N)
    orders = found.first[:, column // 64, (column // 2) % 2].astype(np.int64)  # [M, N, blocks]
    total = np.zeros((case.M, case.N), np.float16)
    for step in range(found.blocks):
        addend = np.take_along_axis(partials, orders[None, :, :, step], axis=0)[0]
        total = (total.astype(np.float32) + addend.astype(np.float32)).astype(np.float16)
    assert_same_bits(total, case.outputs(), case)


def test_a_changed_output_is_refuted() -> None:
    case = next(case for case in RACING if case.K == 1024 and case.M == 8)
    outputs = case.outputs().copy()
    outputs[3, 70] ^= 0x0100
    found = explain(case, outputs)
    wrong = np.argwhere(found.reach == 2)
    assert len(wrong) == 32  # the unit as a whole
    assert set(wrong[:, 0]) == {3}
    assert set(wrong[:, 1] // 64) == {1}
    assert set(wrong[:, 1] // 2 % 2) == {1}


def test_an_impossible_output_is_refuted_beyond_eight_blocks() -> None:
    case = next(case for case in RACING if case.K == 4096 and case.M == 1)
    outputs = case.outputs().copy()
    outputs[0, 5] ^= 0x8000
    assert explain(case, outputs).reach[0, 5] == 2


def test_neighbour_units_do_not_share_an_order() -> None:
    """Were the order drawn per row instead of per unit, few rows could be explained."""
    case = next(case for case in RACING if case.K == 1024 and case.M == 8)
    found = explain(case, case.outputs())
    assert found.first is not None
    assert found.orders is not None
    sure = found.orders == 1
    orders = {tuple(order) for order in found.first[0][sure[0]]}
    assert len(orders) > 1


def test_seed_draws_the_order_and_deterministic_mode_fixes_it() -> None:
    case = next(case for case in RACING if case.K == 4096 and case.M == 8)
    inputs = case.inputs()

    def run(**how: object) -> np.ndarray:
        return kernels.emulate("gptq", *inputs, group_size=128, device="h200", **how)  # type: ignore[arg-type]

    first, again, other = run(seed=1), run(seed=1), run(seed=2)
    assert differing(first, again.view(np.uint16)) == 0
    assert differing(first, other.view(np.uint16)) > 1000
    canonical = run(deterministic=True)
    assert differing(canonical, run(deterministic=True, seed=7).view(np.uint16)) == 0
    spread = np.abs(first.astype(np.float32) - canonical.astype(np.float32)).max()
    assert 0 < spread < 0.05 * np.abs(canonical.astype(np.float32)).max()


def test_drawn_outputs_are_explained() -> None:
    case = next(case for case in RACING if case.K == 1024 and case.M == 1)
    drawn = kernels.emulate("gptq", *case.inputs(), group_size=case.group, device="h200", seed=3)
    found = explain(case, drawn)
    assert found.explained
