"""Rows and traces: order, every refusal, equality by bytes."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import qforensics as qf
from forensics_doubles import small_trace
from qforensics import LogprobRows, Trace


def rows(targets, offsets, ids, logprobs):
    return LogprobRows(
        np.array(targets, np.int32),
        np.array(offsets, np.int64),
        np.array(ids, np.int32),
        np.array(logprobs, np.float32),
    )


@given(
    st.lists(
        st.dictionaries(st.integers(0, 30), st.sampled_from([-0.5, -1.0, -1.5, -2.0, -9.0]), min_size=3), min_size=1
    )
)
def test_from_mappings_is_canonical(mappings):
    targets = [min(m) for m in mappings]
    found = LogprobRows.from_mappings(targets, mappings, top_k=3)
    for i, mapping in enumerate(mappings):
        ids, logprobs = found.row(i)
        ranked = [k for _, k in sorted((-v, k) for k, v in mapping.items())]
        rest = ranked[3:]
        tail = ([targets[i]] if targets[i] in rest else []) + sorted(k for k in rest if k != targets[i])
        assert ids.tolist() == ranked[:3] + tail
        assert logprobs.tolist() == [mapping[k] for k in ranked[:3] + tail]
    assert found.target_logprobs().tolist() == [m[t] for m, t in zip(mappings, targets, strict=True)]
    trace = Trace(np.array([0, *targets], np.int32), np.empty(0, np.int32), found, rows([], [0], [], []), 3)
    assert trace.prefill == found


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (([1], [0], [1], [-1]), "offsets: expected 2"),
        (([1], [0, 2], [1, 2], [-1]), "logprobs: expected 2"),
        (([1], [0, 2], [1], [-1]), "offsets: expected 0 .. 1, found 0 .. 2"),
        (([1], [1, 1], [1], [-1]), "offsets: expected 0 .. 1, found 1 .. 1"),
        (([1, 1, 1], [0, 2, 1, 2], [1, 2], [-1, -1]), "fall at row 1"),
        (([1], [0, 2], [1, -2], [-1, -1]), "negative id -2"),
        (([1], [0, 1], [1], [np.nan]), "finite values, found nan at entry 0"),
        (([1], [0, 1], [1], [-np.inf]), "finite values, found -inf"),
        (([1], [0, 2], [1, 1], [-1, -2]), "id 1 appears twice in row 0"),
        (([3], [0, 2], [1, 2], [-1, -2]), "row 0 does not hold its target 3"),
    ],
)
def test_malformed_rows_are_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        rows(*parts)


def test_wrong_dtypes_are_refused():
    good = rows([1], [0, 1], [1], [-1])
    for name, value in (("ids", good.ids.astype(np.int64)), ("logprobs", [-1.0]), ("targets", good.targets[None])):
        with pytest.raises(TypeError, match=f"{name}: expected a vector of"):
            replace(good, **{name: value})


@pytest.mark.parametrize(
    ("ids", "logprobs", "message"),
    [
        ([1], [-1], "expected at least top_k = 2 entries, found 1"),
        ([2, 1], [-2, -1], "largest are not in order"),
        ([2, 1], [-1, -1], "largest are not in order"),
        ([2, 3, 1], [-1, -2, -1.5], "larger than they are"),
        ([2, 3, 0, 1], [-1, -2, -3, -4], "target does not follow"),
        ([2, 3, 1, 7, 6], [-1, -2, -3, -4, -5], "further ids are not ascending"),
    ],
)
def test_order_is_checked(ids, logprobs, message):
    with pytest.raises(ValueError, match=f"prefill: row 0: .*{message}"):
        Trace(
            np.array([0, 1], np.int32),
            np.empty(0, np.int32),
            rows([1], [0, len(ids)], ids, logprobs),
            rows([], [0], [], []),
            2,
        )


def test_trace_fields_are_checked():
    good = small_trace()
    cases = [
        ({"prompt_ids": np.empty(0, np.int32)}, ValueError, "at least one id"),
        ({"prompt_ids": good.prompt_ids.tolist()}, TypeError, "prompt_ids: expected a vector of int32"),
        ({"top_k": 0}, ValueError, "top_k"),
        ({"top_k": True}, ValueError, "top_k"),
        ({"prefill": good.decode}, ValueError, "prefill: expected the 3 targets"),
        ({"decode": None}, TypeError, "decode: expected LogprobRows"),
        ({"provenance": {"x": float("nan")}}, ValueError, "JSON"),
        ({"provenance": {"x": object()}}, TypeError, "JSON"),
    ]
    for change, kind, message in cases:
        with pytest.raises(kind, match=message):
            replace(good, **change)


def test_results_are_frozen_copies():
    ids = np.array([5, 3], np.int32)
    trace = Trace(ids, np.empty(0, np.int32), rows([3], [0, 1], [3], [-1]), rows([], [0], [], []), 1)
    ids[0] = 9
    assert trace.prompt_ids.tolist() == [5, 3]
    with pytest.raises(ValueError, match="read-only"):
        trace.prefill.logprobs[0] = 0
    with pytest.raises(FrozenInstanceError):
        trace.top_k = 2


def test_equality_is_of_bytes():
    a, b = small_trace(), small_trace()
    assert a == b
    assert hash(a) == hash(b)
    other = replace(a, provenance={"variant": "elsewhere"})
    assert a != other
    assert a.numbers_digest == other.numbers_digest
    zero = [
        Trace(np.array([0, 1], np.int32), np.empty(0, np.int32), rows([1], [0, 1], [1], [v]), rows([], [0], [], []), 1)
        for v in (0.0, -0.0)
    ]
    assert zero[0] != zero[1]
    assert zero[0].numbers_digest != zero[1].numbers_digest
    assert small_trace("k2").numbers_digest != a.numbers_digest


def test_views_are_one_line_and_escaped():
    trace = replace(small_trace(), provenance={"variant": "<b>x</b>", "device": "h200"})
    assert repr(trace) == "Trace(<b>x</b> on h200: 4 prompt + 6 generated ids, top 5)"
    assert "<b>x</b>" not in trace._repr_html_()
    assert "&lt;b&gt;x" in trace._repr_html_()
    assert "\n" not in repr(trace.prefill)
    assert qf.Trace is Trace
