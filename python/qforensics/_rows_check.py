"""Is a set of logprob rows well formed? Vectorised checks, each refusing with the row and the values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["check_order", "check_structure"]


def _first(bad: NDArray[np.bool_]) -> int | None:
    at = np.flatnonzero(bad)
    return int(at[0]) if at.size else None


def check_structure(
    targets: NDArray[np.int32], offsets: NDArray[np.int64], ids: NDArray[np.int32], logprobs: NDArray[np.float32]
) -> None:
    """Offsets cover the entries, ids are unique per row and not negative, values finite, every target present."""
    if offsets.size != targets.size + 1:
        raise ValueError(f"offsets: expected {targets.size + 1} for {targets.size} targets, found {offsets.size}")
    if ids.size != logprobs.size:
        raise ValueError(f"logprobs: expected {ids.size} as there are ids, found {logprobs.size}")
    if offsets[0] != 0 or offsets[-1] != ids.size:
        raise ValueError(f"offsets: expected 0 .. {ids.size}, found {offsets[0]} .. {offsets[-1]}")
    if (row := _first(offsets[1:] < offsets[:-1])) is not None:
        raise ValueError(f"offsets: fall at row {row}: {offsets[row]} then {offsets[row + 1]}")
    if (entry := _first(ids < 0)) is not None:
        raise ValueError(f"ids: negative id {ids[entry]} at entry {entry}")
    if (entry := _first(~np.isfinite(logprobs))) is not None:
        raise ValueError(f"logprobs: expected finite values, found {logprobs[entry]} at entry {entry}")
    row_of = np.repeat(np.arange(targets.size), np.diff(offsets))
    order = np.lexsort((ids, row_of))
    twice = (ids[order][1:] == ids[order][:-1]) & (row_of[order][1:] == row_of[order][:-1])
    if (at := _first(twice)) is not None:
        raise ValueError(f"ids: id {ids[order[at]]} appears twice in row {row_of[order[at]]}")
    present = np.bincount(row_of[ids == targets[row_of]], minlength=targets.size)
    if (row := _first(present == 0)) is not None:
        raise ValueError(f"targets: row {row} does not hold its target {targets[row]}")


def _pairs(bad: NDArray[np.bool_], row_of: NDArray[Any], what: str) -> None:
    if (at := _first(bad)) is not None:
        raise ValueError(f"row {row_of[at]}: {what}")


def check_order(
    targets: NDArray[np.int32],
    offsets: NDArray[np.int64],
    ids: NDArray[np.int32],
    logprobs: NDArray[np.float32],
    top_k: int,
) -> None:
    """Canonical order: `top_k` largest (value descending, id ascending), a target not among them, the rest by id."""
    counts = np.diff(offsets)
    if (row := _first(counts < top_k)) is not None:
        raise ValueError(f"row {row}: expected at least top_k = {top_k} entries, found {counts[row]}")
    row_of = np.repeat(np.arange(targets.size), counts)
    place = np.arange(ids.size) - offsets[:-1][row_of]
    same_row = row_of[1:] == row_of[:-1]
    falls = (logprobs[1:] < logprobs[:-1]) | ((logprobs[1:] == logprobs[:-1]) & (ids[1:] > ids[:-1]))
    _pairs(
        same_row & (place[1:] < top_k) & ~falls, row_of, "the largest are not in order (value descending, id ascending)"
    )
    if not ids.size:
        return
    smallest = logprobs[offsets[:-1] + top_k - 1]
    _pairs(
        (place >= top_k) & (logprobs > smallest[row_of]),
        row_of,
        f"an entry after the top_k = {top_k} is larger than they are",
    )
    is_target = ids == targets[row_of]
    late = is_target & (place >= top_k)
    _pairs(late & (place != top_k), row_of, "the target does not follow the top_k entries")
    rises = (ids[1:] > ids[:-1]) | late[:-1]
    _pairs(same_row & (place[:-1] >= top_k) & ~rises, row_of, "the further ids are not ascending")
