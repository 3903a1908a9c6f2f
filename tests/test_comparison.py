"""Comparisons against independent arithmetic, on recorded runs and on made ones."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import qforensics as qf
from forensics_doubles import RECORDED, FakeModel, small_trace
from qforensics.comparison import PhaseSummary, pool


def recorded(name, index=0, **options):
    return qf.import_trace(RECORDED / f"{name}.json", index, **options)


def maps(name, index):
    run = json.loads((RECORDED / f"{name}.json").read_text())["traces"][index]
    return run["prompt"][1:], run["decode"], run["ids"]


def independent(rows_a, rows_b):
    """Counts, max |d| and mean L2 over shared top 20, straight from the JSON."""
    differing = compared = missing = 0
    largest, l2 = 0.0, []
    for a, b in zip(rows_a, rows_b, strict=False):
        value = lambda bits: float(np.uint32(bits).view(np.float32))  # noqa: E731
        compared += len(a)
        missing += len(a.keys() - b.keys())
        differing += sum(b.get(k) != bits for k, bits in a.items())
        largest = max([largest, *(abs(value(a[k]) - value(b[k])) for k in a.keys() & b.keys())])
        top = sorted(a, key=lambda k: (-value(a[k]), int(k)))[:20]
        l2.append(np.sqrt(sum((value(a[k]) - value(b[k])) ** 2 for k in top if k in b)))
    return differing, compared, missing, largest, float(np.mean(l2))


@pytest.mark.parametrize(("a", "b"), [("awq", "awq_marlin"), ("gptq", "gptq_marlin"), ("awq", "gptq"), ("fp16", "awq")])
@pytest.mark.parametrize("index", [0, 1])
def test_numbers_against_the_recordings(a, b, index):
    found = qf.compare(recorded(a, index), recorded(b, index))
    prompt_a, decode_a, ids_a = maps(a, index)
    prompt_b, decode_b, ids_b = maps(b, index)
    same = next((i for i, (x, y) in enumerate(zip(ids_a, ids_b, strict=True)) if x != y), len(ids_a))
    stop = min(same + 1, len(ids_a))
    for phase, rows_a, rows_b in (
        (found.prefill, prompt_a, prompt_b),
        (found.decode, decode_a[:stop], decode_b[:stop]),
    ):
        differing, compared, missing, largest, l2 = independent(rows_a, rows_b)
        assert (phase.differing, phase.compared, phase.missing, phase.max_abs) == (
            differing,
            compared,
            missing,
            largest,
        )
        # the same sums in another order: 20 doubles, relative error below 20 * 2^-53
        assert abs(phase.seeds_l2 - l2) <= 20 * 2**-53 * l2
        assert phase.rows == len(rows_a)
    assert (found.divergence.index if found.divergence else len(ids_a)) == same
    assert found.decode.skipped == len(ids_a) - stop


def test_equal_runs_are_exact():
    for index in (0, 1):
        found = qf.compare(recorded("awq_marlin", index), recorded("awq_marlin-fa2", index))
        assert found.exact
        assert (found.differing, found.prefill.max_abs, found.decode.seeds_l2) == (0, 0.0, 0.0)
        assert found.compared == found.prefill.compared + found.decode.compared > 0
        assert found.prefill.first_difference is None
    assert repr(found).startswith("Comparison(prefill 0 of ")


def test_one_bit_is_one_difference():
    trace = recorded("awq")
    logprobs = trace.decode.logprobs.copy()
    at = int(trace.decode.offsets[7]) + 3
    logprobs[at] = np.nextafter(logprobs[at], np.float32(-100))
    other = replace(trace, decode=replace(trace.decode, logprobs=logprobs))
    found = qf.compare(trace, other)
    assert (found.prefill.differing, found.decode.differing, found.decode.missing) == (0, 1, 0)
    first = found.decode.first_difference
    assert (first.row, first.token) == (7, trace.decode.ids[at])
    assert (first.first, first.second) == (float(trace.decode.logprobs[at]), float(logprobs[at]))
    assert f"0x{logprobs[at].view(np.uint32):08x}" in str(first)
    assert found.decode.per_row.differing.tolist() == [int(i == 7) for i in range(32)]


def test_divergence_has_both_margins():
    a, b = recorded("awq", 1), recorded("gptq", 1)
    found = qf.compare(a, b).divergence
    assert (found.first_id, found.second_id) == (a.generated_ids[found.index], b.generated_ids[found.index])
    for trace, chosen, margin in ((a, found.first_id, found.first_margin), (b, found.second_id, found.second_margin)):
        ids, logprobs = trace.decode.row(found.index)
        row = dict(zip(ids.tolist(), logprobs.astype(float).tolist(), strict=True))
        assert margin == row.pop(chosen) - max(row.values())


def test_other_prompts_are_not_compared():
    found = qf.compare(recorded("awq", 0), recorded("awq", 1))
    assert (found.compared, found.prompt_divergence, found.divergence, found.exact) == (0, 0, None, False)
    assert found.prefill.skipped == 71
    assert found.decode.skipped == 32
    assert found.prefill.max_abs is None
    assert found.decode.seeds_l2 is None


def test_prompts_are_compared_while_they_agree():
    model = FakeModel("w1", "k1")
    a, b = (model.generate(p, max_new_tokens=2) for p in ([1, 2, 3, 4, 5], [1, 2, 3, 9, 5]))
    found = qf.compare(a, b)
    # rows 0..2 have equal contexts; row 2 predicts another id, so only its top ids count
    assert (found.prompt_divergence, found.prefill.rows, found.prefill.differing, found.decode.rows) == (3, 3, 0, 0)
    assert found.prefill.per_row.compared.tolist()[2] == a.top_k
    shorter = qf.compare(model.generate([1, 2, 3], max_new_tokens=1), a)
    assert (shorter.prefill.rows, shorter.prefill.differing, shorter.prefill.skipped, shorter.decode.rows) == (
        2,
        0,
        2,
        0,
    )


def test_absent_entries_are_differing_and_missing():
    a, b = small_trace("k1", size=0.5), small_trace("k2", size=0.5)
    found = qf.compare(a, b).prefill
    want = 0
    for i in range(found.rows):
        want += len(set(a.prefill.row(i)[0].tolist()) - set(b.prefill.row(i)[0].tolist()))
    assert found.missing == want > 0
    assert found.differing >= found.missing
    replay = FakeModel("w1", "k2", size=0.5).teacher_force(a)
    assert qf.compare(a, replay).prefill.missing == 0


def test_errors_are_symmetric():
    a, b = recorded("awq"), small_trace()
    for pair in ((a, b), (b, a)):
        with pytest.raises(ValueError, match="top_k: the traces record"):
            qf.compare(*pair)
    for top in (0, 21):
        with pytest.raises(ValueError, match="l2_top"):
            qf.compare(a, a, l2_top=top)


def test_path_notes_come_from_the_replay_only():
    plain = small_trace()
    noted = replace(plain, provenance={"racing": {"prefill": ["x"]}, "unconfirmed": {"decode": ["y"]}})
    found = qf.compare(plain, noted)
    assert found.racing == {"prefill": ("x",), "decode": ("x",)}
    assert found.unconfirmed == {"prefill": (), "decode": ("y",)}
    assert qf.compare(noted, plain).racing == {"prefill": (), "decode": ()}
    assert qf.compare(plain, replace(plain, provenance={"racing": ["x"]})).racing == {
        "prefill": ("x",),
        "decode": ("x",),
    }
    for wrong in ("x", 5, {"other": []}, {"prefill": "x"}):
        with pytest.raises(ValueError, match="racing"):
            qf.compare(plain, replace(plain, provenance={"racing": wrong}))


def test_pool_and_json():
    comparisons = [qf.compare(recorded("awq", i), recorded("awq_marlin", i)) for i in (0, 1)]
    pooled = pool([c.prefill for c in comparisons])
    assert pooled.differing == sum(c.prefill.differing for c in comparisons)
    assert pooled.max_abs == max(c.prefill.max_abs for c in comparisons)
    assert pooled.seeds_l2 == np.mean([c.prefill.seeds_l2 for c in comparisons])
    assert PhaseSummary.from_json(json.loads(json.dumps(pooled.to_json()))) == pooled
    with pytest.raises(ValueError, match="at least one"):
        pool([])
    assert "seeds_l2" in comparisons[0]._repr_html_()
