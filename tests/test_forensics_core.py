"""csrc/forensics against independent references written with dictionaries and NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qforensics import _core

Row = tuple[int, dict[int, float]]  # target, id -> logprob in order


def arrays(rows: list[Row]):
    offsets = np.cumsum([0, *(len(entries) for _, entries in rows)]).astype(np.int64)
    ids = np.array([i for _, entries in rows for i in entries], np.int32)
    logprobs = np.array([v for _, entries in rows for v in entries.values()], np.float32)
    return offsets, ids, logprobs, np.array([target for target, _ in rows], np.int32)


def reference(a: list[Row], b: list[Row], rows: int, top_k: int, l2_top: int):
    """Plain Python: what `compare_rows` has to say."""
    out: dict[str, list] = {k: [] for k in ("compared", "differing", "missing", "max_abs", "shared", "l2", "l2_shared")}
    for (target_a, row_a), (target_b, row_b) in list(zip(a, b, strict=False))[:rows]:
        items = list(row_a.items())
        if target_a != target_b:
            items = items[:top_k]
        pairs = [(np.float32(v), np.float32(row_b[i])) for i, v in items if i in row_b]
        top = [(np.float32(v), np.float32(row_b[i])) for i, v in items[:l2_top] if i in row_b]
        out["compared"].append(len(items))
        out["missing"].append(len(items) - len(pairs))
        out["differing"].append(len(items) - sum(x.tobytes() == y.tobytes() for x, y in pairs))
        out["shared"].append(len(pairs))
        out["max_abs"].append(max((abs(float(x) - float(y)) for x, y in pairs), default=0.0))
        out["l2"].append(math.sqrt(sum((float(x) - float(y)) ** 2 for x, y in top)))
        out["l2_shared"].append(len(top))
    return out


values = st.floats(-30, 0, width=32) | st.sampled_from([0.0, -0.0, -1.0])
row = st.dictionaries(st.integers(0, 9), values, min_size=3, max_size=8)
rows_of = st.lists(st.tuples(st.integers(0, 1), row), min_size=1, max_size=5)


@settings(max_examples=200, deadline=None)
@given(rows_of, rows_of, st.integers(1, 3))
def test_compare_rows_matches_reference(a, b, l2_top):
    n = min(len(a), len(b))
    found = _core.compare_rows(arrays(a), arrays(b), rows=n, top_k=3, l2_top=l2_top)
    wanted = reference(a, b, n, 3, l2_top)
    for name, expected in wanted.items():
        np.testing.assert_array_equal(found[name], expected, err_msg=name)
    if any(wanted["differing"]):
        at = next(i for i, d in enumerate(wanted["differing"]) if d)
        first_row, entry, other = found["first"]
        assert first_row == at
        token = arrays(a)[1][entry]
        assert (other is None) == (int(token) not in b[at][1])
    else:
        assert found["first"] is None


def test_signed_zeros_differ_by_bits_only():
    found = _core.compare_rows(arrays([(1, {1: 0.0})]), arrays([(1, {1: -0.0})]), rows=1, top_k=1, l2_top=1)
    assert (found["differing"][0], found["max_abs"][0]) == (1, 0.0)


def test_order_within_a_row_plays_no_part():
    a, b = arrays([(1, {1: -1.0, 2: -2.0})]), arrays([(1, {2: -2.0, 1: -1.0})])
    assert _core.compare_rows(a, b, rows=1, top_k=2, l2_top=2)["differing"][0] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: (r[0][:-1], *r[1:]), "offsets"),
        (lambda r: (r[0] + 1, *r[1:]), "expected 0"),
        (lambda r: (r[0][::-1].copy(), *r[1:]), "expected 0"),
        (lambda r: (np.array([0, 3, 2], np.int64), *r[1:]), "fall"),
        (lambda r: (np.array([0, 2, 9], np.int64), *r[1:]), "expected 4 entries"),
        (lambda r: (r[0], r[1][:-1], *r[2:]), "ids and"),
        (lambda r: (r[0], r[1].astype(np.int64), *r[2:]), "dtype"),
        (lambda r: (r[0], r[1], r[2].astype(np.float64), r[3]), "dtype"),
        (lambda r: r[:3], "expected .offsets"),
    ],
)
def test_malformed_rows_are_refused(change, message):
    good = arrays([(1, {1: -1.0, 2: -2.0}), (2, {1: -1.0, 2: -2.0})])
    for pair in ((change(good), good), (good, change(good))):
        with pytest.raises(_core.CoreError, match=message):
            _core.compare_rows(*pair, rows=2, top_k=2, l2_top=2)


@pytest.mark.parametrize("options", [{"rows": 3}, {"rows": -1}, {"top_k": 0}, {"l2_top": 0}, {"l2_top": 3}])
def test_bad_options_are_refused(options):
    good = arrays([(1, {1: -1.0, 2: -2.0})])
    with pytest.raises(_core.CoreError):
        _core.compare_rows(good, good, **({"rows": 1, "top_k": 2, "l2_top": 2} | options))


def test_chosen_margin():
    rows = arrays([(1, {5: -0.5, 1: -0.75, 7: -3.0})])
    assert _core.chosen_margin(rows, 0, 5) == 0.25
    assert _core.chosen_margin(rows, 0, 7) == -2.5
    for bad in ((0, 6), (1, 5), (-1, 5)):
        with pytest.raises(_core.CoreError):
            _core.chosen_margin(rows, *bad)
    with pytest.raises(_core.CoreError, match="no other entry"):
        _core.chosen_margin(arrays([(1, {1: -1.0})]), 0, 1)


@given(st.lists(st.integers(0, 2), max_size=6), st.lists(st.integers(0, 2), max_size=6))
def test_first_divergence(a, b):
    wanted = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    assert _core.first_divergence(np.array(a, np.int32), np.array(b, np.int32)) == wanted


@given(
    st.integers(0, 8).flatmap(
        lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, max(n - 1, 0))] * 2)))
    )
)
def test_equivalence_classes_are_the_connected_components(case):
    n, pairs = case
    same = np.zeros((n, n), np.uint8)
    for i, j in pairs if n else []:
        same[i, j] = 1
    reach = (same | same.T | np.eye(n, dtype=np.uint8)).astype(np.int64)
    for _ in range(n):
        reach = np.minimum(reach @ reach, 1)
    found = _core.equivalence_classes(same)
    assert [[int(found[i] == found[j]) for j in range(n)] for i in range(n)] == reach.tolist()
    first_seen = list(dict.fromkeys(found.tolist()))
    assert first_seen == list(range(len(first_seen)))


def test_equivalence_classes_need_a_square():
    with pytest.raises(_core.CoreError, match="shape"):
        _core.equivalence_classes(np.zeros((2, 3), np.uint8))
