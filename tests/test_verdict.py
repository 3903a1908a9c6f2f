"""Noise floors and verdicts: every outcome, for its reason."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import qforensics as qf
from forensics_doubles import RECORDED, FakeModel, small_trace
from qforensics.noise import NoiseFloor
from qforensics.verdict import Verdict

NAMES = ("awq", "awq_marlin", "gptq", "gptq_marlin")


def recorded(name, index=0, **options):
    return qf.import_trace(RECORDED / f"{name}.json", index, **options)


def tagged(trace, process, **more):
    return replace(trace, provenance={**trace.provenance, "process": process, **more})


def noted(trace, **notes):
    return replace(trace, provenance={**trace.provenance, **notes})


def test_floor_of_the_recorded_gptq():
    floor = qf.noise_floor([recorded("gptq"), recorded("gptq", part="again")])
    a, b = recorded("gptq").prefill, recorded("gptq", part="again").prefill
    shared = [dict(zip(*(x.tolist() for x in rows.row(0)), strict=True)) for rows in (a, b)]
    assert not floor.deterministic
    assert floor.prefill.max_abs >= max(abs(shared[0][k] - shared[1][k]) for k in shared[0].keys() & shared[1].keys())
    assert floor.classes == ((0, 1),)
    assert floor.cause is None
    assert "repeats differ and no provenance names a cause" in floor.warnings
    assert "the traces do not record which process made them" in floor.warnings


def test_floor_of_equal_runs_in_two_processes():
    traces = [tagged(recorded("awq", i), process) for i in (0, 1) for process in (1, 1, 2)]
    floor = qf.noise_floor(traces)
    assert floor.deterministic
    assert (floor.prompts, floor.repeats, floor.processes, len(floor.pairs)) == (2, 3, 2, 6)
    assert (floor.prefill.differing, floor.decode.differing, floor.prefill.max_abs) == (0, 0, 0.0)
    assert floor.classes == ((0, 0, 0), (0, 0, 0))
    assert floor.warnings == ()
    assert floor.conditions["variant"] == "awq"
    assert repr(floor) == "NoiseFloor(bit-equal; 2 prompts x 3 repeats in 2 processes)"
    assert NoiseFloor.from_json(json.loads(json.dumps(floor.to_json()))) == floor


def test_floor_says_what_it_lacks():
    one_process = qf.noise_floor([tagged(small_trace(), 1)] * 2)
    assert any("one process" in w for w in one_process.warnings)
    racing = [tagged(FakeModel("w1", "k1", racing=True).generate([1, 2, 3], max_new_tokens=4), p) for p in (1, 2)]
    floor = qf.noise_floor(racing)
    assert floor.cause == "racing atomics (fake_atomic)"
    assert floor.warnings == ()
    mixed = qf.noise_floor([tagged(small_trace(), 1), tagged(small_trace("k2"), 2)])
    assert any("variant differ" in w for w in mixed.warnings)
    uneven = qf.noise_floor([tagged(small_trace(), 1), tagged(small_trace(), 2), tagged(small_trace(prompt=(9, 9)), 1)])
    assert any("single run" in w for w in uneven.warnings)
    with pytest.raises(ValueError, match="at least two runs of a prompt, found 2 traces of 2 prompts"):
        qf.noise_floor([small_trace(), small_trace(prompt=(9, 9))])


@pytest.fixture(scope="module")
def comparisons():
    return {name: [qf.compare(recorded("awq_marlin", i), recorded(name, i)) for i in (0, 1)] for name in NAMES}


def test_match_and_mismatch(comparisons):
    match = qf.judge("awq_marlin", comparisons)
    assert (match.outcome, match.matching, match.undecided) == ("match", ("awq_marlin",), ())
    assert set(match.excluded) == {"awq", "gptq", "gptq_marlin"}
    assert match.claimed.differing == 0
    assert match.reasons[0] == f"0 of {match.claimed.compared:,} logprobs differ"
    mismatch = qf.judge("awq", comparisons)
    differing = sum(c.differing for c in comparisons["awq"])
    assert mismatch.outcome == "mismatch"
    assert f"{differing:,} of" in mismatch.reasons[0]
    assert "0 differing under: awq_marlin" in mismatch.reasons
    assert any(r.startswith("excluded: gptq (") for r in mismatch.reasons)
    assert Verdict.from_json(json.loads(json.dumps(mismatch.to_json()))) == mismatch
    assert mismatch.digests == tuple(c.digests for c in comparisons["awq"])


def test_one_differing_entry_is_a_mismatch():
    trace = recorded("fp16")
    logprobs = trace.prefill.logprobs.copy()
    logprobs[-1] = np.nextafter(logprobs[-1], np.float32(-99))
    changed = replace(trace, prefill=replace(trace.prefill, logprobs=logprobs))
    verdict = qf.judge("fp16", {"fp16": qf.compare(trace, changed)})
    assert (verdict.outcome, verdict.claimed.differing) == ("mismatch", 1)


def test_matching_hypotheses_that_cannot_be_told_apart():
    trace = small_trace()
    verdict = qf.judge("a", {"a": qf.compare(trace, trace), "b": qf.compare(trace, trace)})
    assert verdict.outcome == "match"
    assert "also 0 differing, so not told apart: b" in verdict.reasons


def test_racing_path_is_inconclusive_unless_exact():
    reference, replay = small_trace("k1"), noted(small_trace("k2"), racing={"decode": ["exllama"]})
    # prefill does not race here and differs: decisive
    assert qf.judge("g", {"g": qf.compare(reference, replay)}).outcome == "mismatch"
    both = noted(replay, racing={"prefill": ["exllama"], "decode": ["exllama"]})
    verdict = qf.judge("g", {"g": qf.compare(reference, both)})
    assert verdict.outcome == "inconclusive"
    assert (verdict.undecided, verdict.matching) == (("g",), ())
    assert "racing atomics on the prefill path: exllama" in verdict.reasons
    assert "no fitted noise floor for the claimed hypothesis" in verdict.reasons
    identified = qf.judge("g", {"g": qf.compare(reference, both), "other": qf.compare(reference, reference)})
    assert (identified.outcome, identified.excluded, identified.matching) == ("mismatch", ("g",), ("other",))
    assert "another hypothesis gives every one of these bits: other" in identified.reasons
    floor = qf.noise_floor([tagged(small_trace(), 1), tagged(small_trace(), 2)])
    with_floor = qf.judge("g", {"g": qf.compare(reference, both)}, floor=floor)
    assert with_floor.outcome == "inconclusive"
    assert any("no calibrated test" in r for r in with_floor.reasons)
    assert qf.judge("g", {"g": qf.compare(reference, noted(reference, racing={"prefill": ["x"]}))}).outcome == "match"


def test_unconfirmed_definitions_are_inconclusive_unless_exact():
    reference = small_trace("k1")
    replay = noted(small_trace("k2"), unconfirmed={"prefill": ["attention over 1316 keys"]})
    verdict = qf.judge("g", {"g": qf.compare(reference, replay)})
    assert verdict.outcome == "inconclusive"
    assert any("no recording confirms on the prefill path, and not exact: attention" in r for r in verdict.reasons)
    exact = noted(reference, unconfirmed={"prefill": ["attention over 1316 keys"]})
    assert qf.judge("g", {"g": qf.compare(reference, exact)}).outcome == "match"


def test_what_a_provider_says_about_races_does_not_help_it():
    reference = noted(small_trace("k1"), racing={"prefill": ["anything"], "decode": ["anything"]})
    assert qf.judge("g", {"g": qf.compare(reference, small_trace("k2"))}).outcome == "mismatch"


def test_nothing_or_not_everything_compared_is_inconclusive():
    a, other_prompt = small_trace(), small_trace(prompt=(9, 9))
    verdict = qf.judge("g", {"g": qf.compare(a, other_prompt)})
    assert (verdict.outcome, "nothing was compared" in verdict.reasons[0]) == ("inconclusive", True)
    longer = small_trace(length=8)
    verdict = qf.judge("g", {"g": qf.compare(longer, a)})
    assert verdict.outcome == "inconclusive"
    assert "2 positions could not be compared" in verdict.reasons[0]


def test_mistakes_are_named(comparisons):
    with pytest.raises(ValueError, match="did you mean awq_marlin"):
        qf.judge("awq-marlin", comparisons)
    with pytest.raises(ValueError, match="no comparison for awq"):
        qf.judge("awq", {"awq": []})


def test_views(comparisons):
    verdict = qf.judge("awq", comparisons)
    assert "\n" not in repr(verdict)
    assert "mismatch" in verdict._repr_html_()
    assert "excluded" in verdict._repr_html_()


@pytest.mark.parametrize(
    ("reference", "replay", "words"),
    [
        ({"batch": 4}, {"batch": 1}, "in a batch of 4 and alone: the rows (M)"),
        ({"mode": "compiled"}, {"profile": "vllm-0.21-eager"}, "engine was compiled"),
    ],
)
def test_a_replay_that_was_not_run_as_the_reference_proves_nothing(reference, replay, words):
    a, b = noted(small_trace("k1"), **reference), noted(small_trace("k2"), **replay)
    verdict = qf.judge("x", {"x": qf.compare(a, b)})
    assert verdict.outcome == "inconclusive"
    assert any(words in reason for reason in verdict.reasons)
    assert qf.judge("x", {"x": qf.compare(a, noted(small_trace("k1"), **replay))}).outcome == "match"
    known = qf.judge("x", {"x": qf.compare(a, b), "y": qf.compare(a, noted(small_trace("k1"), **reference))})
    assert known.outcome == "mismatch"  # another hypothesis gives every bit
    same = qf.compare(noted(a, **{k: v for k, v in replay.items() if k == "batch"} or {"mode": "eager"}), b)
    assert qf.judge("x", {"x": same}).outcome == "mismatch"  # negative control: run alike


def test_edges():
    empty, none = small_trace(length=0), small_trace(prompt=(1,), length=0)
    assert qf.judge("x", {"x": qf.compare(empty, empty)}).outcome == "match"  # a prefill alone is evidence
    assert "nothing was compared" in qf.judge("x", {"x": qf.compare(none, none)}).reasons[0]
    cut = qf.judge("x", {"x": qf.compare(small_trace(), small_trace(length=2))})
    assert (cut.outcome, cut.claimed.skipped) == ("inconclusive", 4)
    with pytest.raises(ValueError, match="found none"):
        qf.judge("x", {})
    with pytest.raises(TypeError, match="second: expected a Trace, found str"):
        qf.compare(empty, "x")
    with pytest.raises(TypeError, match="expected Trace objects, found str"):
        qf.noise_floor(["x", "y"])
    floor = qf.noise_floor([small_trace(), small_trace(length=2)])
    assert not floor.deterministic
    assert any("differ in length" in warning for warning in floor.warnings)
    assert "processes not recorded" in repr(floor)
