"""Noise floors: what identical runs differ by, how that was measured, and why."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qforensics import _core, _html
from qforensics._json import canonical_json
from qforensics.comparison import Comparison, PhaseSummary, compare, pool
from qforensics.trace import PHASES, Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["NoiseFloor", "PairDistance", "noise_floor"]

RACING = "racing atomics"
CONDITIONS = ("variant", "device", "profile", "engine", "mode", "isa", "threads")


@dataclass(frozen=True)
class PairDistance:
    """Two repeats of one prompt: indices into the prompt's repeats, and their distance."""

    prompt: int
    first: int
    second: int
    prefill: PhaseSummary
    decode: PhaseSummary
    diverged_at: int | None


@dataclass(frozen=True, repr=False)
class NoiseFloor:
    """What repeats of the same thing differ by.

    `repeats` is the smallest number of repeats of a prompt, `processes` how many processes they came from (0: not
    recorded). `classes` lists, per prompt, the class of every repeat: equal numbers mean equal bits. `cause` is
    "racing atomics (names)" where a provenance says so and `None` otherwise. `warnings` are its limits in words.
    """

    prompts: int
    repeats: int
    processes: int
    prefill: PhaseSummary
    decode: PhaseSummary
    pairs: tuple[PairDistance, ...]
    classes: tuple[tuple[int, ...], ...]
    cause: str | None
    conditions: dict[str, Any]
    warnings: tuple[str, ...]
    digests: tuple[str, ...]

    @property
    def deterministic(self) -> bool:
        """Whether all repeats of every prompt have the same ids and bits."""
        return all(max(classes) == 0 for classes in self.classes)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Distance of every pair of repeats; returns the axes."""
        from qforensics import _plot

        return _plot.noise_floor(self, ax)

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        plain = {
            key: getattr(self, key)
            for key in ("prompts", "repeats", "processes", "cause", "conditions", "deterministic")
        }
        phases = {phase: getattr(self, phase).to_json() for phase in PHASES}
        lists = {
            "classes": [list(c) for c in self.classes],
            "warnings": list(self.warnings),
            "digests": list(self.digests),
        }
        return plain | phases | lists | {"pairs": [_pair_json(pair) for pair in self.pairs]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> NoiseFloor:
        """Inverse of `to_json`."""
        plain = {key: data[key] for key in ("prompts", "repeats", "processes", "cause", "conditions")}
        return cls(
            **plain,
            prefill=PhaseSummary.from_json(data["prefill"]),
            decode=PhaseSummary.from_json(data["decode"]),
            pairs=tuple(_pair_from_json(pair) for pair in data["pairs"]),
            classes=tuple(tuple(c) for c in data["classes"]),
            warnings=tuple(data["warnings"]),
            digests=tuple(data["digests"]),
        )

    def __repr__(self) -> str:
        what = (
            "bit-equal"
            if self.deterministic
            else f"{self.cause or 'unexplained differences'}, max |d| {self._max_abs():.3g}"
        )
        where = f"in {self.processes} processes" if self.processes else "in processes not recorded"
        return f"NoiseFloor({what}; {self.prompts} prompts x {self.repeats} repeats {where})"

    def _max_abs(self) -> float:
        return max((p.max_abs for p in (self.prefill, self.decode) if p.max_abs is not None), default=0.0)

    def _repr_html_(self) -> str:
        names = ("compared", "differing", "max_abs", "seeds_l2")
        rows = [(name, getattr(self.prefill, name), getattr(self.decode, name)) for name in names]
        notes = _html.table([(text,) for text in self.warnings]) if self.warnings else ""
        return _html.section(repr(self), _html.table(rows, head=("", *PHASES)), notes)


def _pair_json(pair: PairDistance) -> dict[str, Any]:
    plain = {key: getattr(pair, key) for key in ("prompt", "first", "second", "diverged_at")}
    return plain | {phase: getattr(pair, phase).to_json() for phase in PHASES}


def _pair_from_json(data: dict[str, Any]) -> PairDistance:
    return PairDistance(**(data | {phase: PhaseSummary.from_json(data[phase]) for phase in PHASES}))


def _pair(prompt: int, first: int, second: int, comparison: Comparison) -> PairDistance:
    phases = {phase: PhaseSummary.from_json(getattr(comparison, phase).to_json()) for phase in PHASES}
    divergence = comparison.divergence
    return PairDistance(prompt, first, second, **phases, diverged_at=divergence.index if divergence else None)


def _cause(traces: Sequence[Trace]) -> str | None:
    names = {name for trace in traces for name in trace.on_path("racing")["decode"]}
    return f"{RACING} ({', '.join(sorted(names))})" if names else None


def _warnings(
    traces: Sequence[Trace], repeats: int, processes: int, deterministic: bool, cause: str | None
) -> tuple[str, ...]:
    found = []
    if repeats < 2:
        found.append("a prompt has a single run: nothing was repeated")
    if processes == 0:
        found.append("the traces do not record which process made them")
    elif processes < 2:
        found.append("all repeats come from one process: what differs between processes was not seen")
    if not deterministic and cause is None:
        found.append("repeats differ and no provenance names a cause")
    lengths: dict[bytes, set[int]] = {}
    for trace in traces:
        lengths.setdefault(trace.prompt_ids.tobytes(), set()).add(trace.generated_ids.size)
    if any(len(found_lengths) > 1 for found_lengths in lengths.values()):
        found.append("repeats of a prompt differ in length: what only one of them has was not compared")
    mixed = [k for k in CONDITIONS if len({canonical_json(t.provenance.get(k)) for t in traces}) > 1]
    if mixed:
        found.append(f"the repeats were not made under one condition: {', '.join(mixed)} differ")
    return tuple(found)


def noise_floor(traces: Sequence[Trace]) -> NoiseFloor:
    """Measure what repeated runs differ by.

    Parameters
    ----------
    traces
        Repeats of one configuration, of one prompt or of several; traces with the same prompt ids are repeats of each
        other. Fit it on at least two processes (provenance ``process``): the floor says when there were fewer.

    Returns
    -------
    NoiseFloor
        All pairs of every prompt compared, classes of bit-equal repeats, cause and conditions.

    Raises
    ------
    ValueError
        When no prompt has two runs.
    """
    groups: dict[bytes, list[Trace]] = {}
    for trace in traces:
        if not isinstance(trace, Trace):
            raise TypeError(f"traces: expected Trace objects, found {type(trace).__name__}")
        groups.setdefault(trace.prompt_ids.tobytes(), []).append(trace)
    if not any(len(group) > 1 for group in groups.values()):
        raise ValueError(
            f"noise_floor: expected at least two runs of a prompt, found {len(traces)} traces of {len(groups)} prompts"
        )
    pairs, classes = [], []
    for prompt, group in enumerate(groups.values()):
        same = np.array([[a.numbers_digest == b.numbers_digest for b in group] for a in group], np.uint8)
        classes.append(tuple(int(c) for c in _core.equivalence_classes(same)))
        for i, j in itertools.combinations(range(len(group)), 2):
            pairs.append(_pair(prompt, i, j, compare(group[i], group[j])))
    repeats = min(map(len, groups.values()))
    processes = len(
        {canonical_json(t.provenance["process"]) for t in traces if t.provenance.get("process") is not None}
    )
    cause = _cause(traces)
    return NoiseFloor(
        prompts=len(groups),
        repeats=repeats,
        processes=processes,
        prefill=pool([pair.prefill for pair in pairs]),
        decode=pool([pair.decode for pair in pairs]),
        pairs=tuple(pairs),
        classes=tuple(classes),
        cause=cause,
        conditions={key: traces[0].provenance[key] for key in CONDITIONS if key in traces[0].provenance},
        warnings=_warnings(traces, repeats, processes, all(max(c) == 0 for c in classes), cause),
        digests=tuple(trace.digest for trace in traces),
    )
