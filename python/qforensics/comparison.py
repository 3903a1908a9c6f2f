"""Comparisons: how two traces differ, entry by entry, with no judgement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qforensics import _core, _html
from qforensics.trace import PHASES, LogprobRows, Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "Comparison",
    "Divergence",
    "FirstDifference",
    "PhaseComparison",
    "PhaseSummary",
    "RowDistances",
    "compare",
    "pool",
]


@dataclass(frozen=True)
class FirstDifference:
    """The first entry whose bits differ: `second` is `None` where the second trace has no such id."""

    row: int
    token: int
    first: float
    second: float | None

    def __str__(self) -> str:
        def show(value: float | None) -> str:
            if value is None:
                return "absent"
            return f"{value!r} (0x{np.float32(value).view(np.uint32):08x})"

        return f"row {self.row}, token {self.token}: {show(self.first)} against {show(self.second)}"


@dataclass(frozen=True, eq=False, repr=False)
class RowDistances:
    """Per compared row: int64 and float64 vectors [rows]; `max_abs`, `l2` are 0 where `shared`, `l2_shared` are 0."""

    compared: NDArray[np.int64]
    differing: NDArray[np.int64]
    missing: NDArray[np.int64]
    shared: NDArray[np.int64]
    max_abs: NDArray[np.float64]
    l2: NDArray[np.float64]
    l2_shared: NDArray[np.int64]


@dataclass(frozen=True)
class PhaseSummary:
    """Numbers of one phase (prefill or decode).

    `compared` counts the first trace's entries; `differing` those whose float32 bits the second trace does not have,
    `missing` those among them that it has no entry for. `skipped` rows had other contexts in the two traces, or are in
    one only, and were not compared. `max_abs` is over ids present in both, `seeds_l2` the mean over rows of the L2 over
    shared top ids (source: the prior experiment); both are `None` where nothing is shared.
    """

    rows: int
    skipped: int
    compared: int
    differing: int
    missing: int
    max_abs: float | None
    seeds_l2: float | None
    first_difference: FirstDifference | None

    @property
    def exact(self) -> bool:
        """Whether every row was compared and every entry has the same bits."""
        return self.differing == 0 and self.skipped == 0

    def to_json(self) -> dict[str, Any]:
        """JSON-able form of the numbers (not of the rows)."""
        data = {key: getattr(self, key) for key in PhaseSummary.__dataclass_fields__}
        return data | {"first_difference": asdict(self.first_difference) if self.first_difference else None}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PhaseSummary:
        """Inverse of `to_json`."""
        first = data["first_difference"]
        return cls(**(data | {"first_difference": FirstDifference(**first) if first else None}))


@dataclass(frozen=True)
class PhaseComparison(PhaseSummary):
    """A phase's numbers and, in `per_row`, what each token contributed."""

    per_row: RowDistances = field(repr=False, compare=False)


@dataclass(frozen=True)
class Divergence:
    """Where generated ids first differ: the logprob of each side's id minus the largest other one of its row."""

    index: int
    first_id: int
    second_id: int
    first_margin: float
    second_margin: float


@dataclass(frozen=True, repr=False)
class Comparison:
    """Two traces, phase by phase.

    `racing` and `unconfirmed` name what the *second* trace, the replay, has on the path of a phase. What the first one
    says about itself plays no part there: it is under test. `conditions` says where the replay did not follow how the
    first one says it was run (a batch, a compiled engine), so that a difference says nothing about its claim.
    """

    prefill: PhaseComparison
    decode: PhaseComparison
    divergence: Divergence | None
    prompt_divergence: int | None
    racing: dict[str, tuple[str, ...]]
    unconfirmed: dict[str, tuple[str, ...]]
    digests: tuple[str, str]
    conditions: tuple[str, ...] = ()

    @property
    def differing(self) -> int:
        """Differing entries of both phases."""
        return self.prefill.differing + self.decode.differing

    @property
    def compared(self) -> int:
        """Compared entries of both phases."""
        return self.prefill.compared + self.decode.compared

    @property
    def exact(self) -> bool:
        """Whether something was compared, everything could be, and nothing differs."""
        return self.compared > 0 and self.prefill.exact and self.decode.exact

    def plot(self, ax: Axes | None = None) -> Axes:
        """Largest |difference| and differing entries per token; returns the axes."""
        from qforensics import _plot

        return _plot.token_differences(self, ax)

    def __repr__(self) -> str:
        parts = (
            f"{name} {p.differing:,} of {p.compared:,} differ"
            for name, p in zip(PHASES, (self.prefill, self.decode), strict=True)
        )
        tail = f", ids diverge at {self.divergence.index}" if self.divergence else ""
        return f"Comparison({', '.join(parts)}{tail})"

    def _repr_html_(self) -> str:
        names = ("rows", "skipped", "compared", "differing", "missing", "max_abs", "seeds_l2", "first_difference")
        rows = [(name, getattr(self.prefill, name), getattr(self.decode, name)) for name in names]
        return _html.section(repr(self), _html.table(rows, head=("", *PHASES)))


def _phase(first: LogprobRows, second: LogprobRows, rows: int, top_k: int, l2_top: int) -> PhaseComparison:
    raw = _core.compare_rows(first.arrays(), second.arrays(), rows=rows, top_k=top_k, l2_top=l2_top)
    difference = None
    if raw["first"] is not None:
        row, at, other = raw["first"]
        value = None if other is None else float(second.logprobs[other])
        difference = FirstDifference(row, int(first.ids[at]), float(first.logprobs[at]), value)
    per_row = RowDistances(**{name: raw[name] for name in RowDistances.__dataclass_fields__})
    with_l2 = per_row.l2[per_row.l2_shared > 0]
    return PhaseComparison(
        rows=rows,
        skipped=max(first.rows, second.rows) - rows,
        compared=int(per_row.compared.sum()),
        differing=int(per_row.differing.sum()),
        missing=int(per_row.missing.sum()),
        max_abs=float(per_row.max_abs.max()) if per_row.shared.any() else None,
        seeds_l2=float(with_l2.mean()) if with_l2.size else None,
        first_difference=difference,
        per_row=per_row,
    )


def _divergence(first: Trace, second: Trace, rows: int) -> Divergence | None:
    at = _core.first_divergence(first.generated_ids, second.generated_ids)
    if at >= rows:
        return None
    ids = [int(trace.generated_ids[at]) for trace in (first, second)]
    margins = [
        _core.chosen_margin(trace.decode.arrays(), at, token) for trace, token in zip((first, second), ids, strict=True)
    ]
    return Divergence(at, *ids, *margins)


def _conditions(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[str, ...]:
    """How the replay was not run as the first trace says that it was."""
    found = []
    batches = first.get("batch"), second.get("batch")
    if all(type(batch) is int for batch in batches) and batches[0] != batches[1]:
        sizes = " and ".join("alone" if batch == 1 else f"in a batch of {batch}" for batch in batches)
        found.append(
            f"reference and replay ran {sizes}: the rows (M) of their steps differ, and kernels depend on them"
        )
    steps = [_prompt_steps(trace) for trace in (first, second)]
    if batches[0] == batches[1] and all(steps) and steps[0] != steps[1]:
        shown = " and ".join(", ".join(map(str, rows[:4])) + (", ..." if len(rows) > 4 else "") for rows in steps)
        found.append(f"prompts of reference and replay went through in steps of {shown} rows: kernels depend on them")
    profile = str(second.get("profile", ""))
    if first.get("mode") == "compiled" and profile.endswith("-eager"):
        found.append(f"the reference's engine was compiled, the replay's profile is {profile}")
    return tuple(found)


def _prompt_steps(provenance: Mapping[str, Any]) -> list[int]:
    """Rows of every step that prefills; none where a trace does not record its steps."""
    steps = provenance.get("rows")
    pairs = [step for step in steps if isinstance(step, list) and len(step) == 2] if isinstance(steps, list) else []
    return [rows for phase, rows in pairs if phase == "prefill" and type(rows) is int]


def compare(first: Trace, second: Trace, *, l2_top: int | None = None) -> Comparison:
    """Compare two traces where their contexts are equal.

    A position is compared when every id before it is the same in both; the first position at which the generated ids
    differ is the last one compared, and only over its top ids. Entries are compared by float32 bits.

    Parameters
    ----------
    first, second
        The reference and its replay, with the same `top_k`. Counts are over the first one's entries.
    l2_top
        How many of the first's largest ids enter `seeds_l2`; `top_k` when None (the prior experiment used 5 of 20).

    Returns
    -------
    Comparison
        Numbers per phase and per row, the divergence of the ids, and what could disturb the comparison.

    Raises
    ------
    ValueError
        When the traces record different `top_k`, or `l2_top` is not in 1 .. `top_k`.

    Examples
    --------
    >>> import qforensics as qf
    >>> folder = "tests/data/traces/vllm-0.21.0-h200"
    >>> fa3, fa2 = (qf.import_trace(f"{folder}/{name}.json") for name in ("awq_marlin", "awq_marlin-fa2"))
    >>> qf.compare(fa3, fa2)
    Comparison(prefill 0 of 756 differ, decode 0 of 640 differ)
    """
    for name, trace in (("first", first), ("second", second)):
        if not isinstance(trace, Trace):
            raise TypeError(f"{name}: expected a Trace, found {type(trace).__name__}")
    if first.top_k != second.top_k:
        raise ValueError(f"top_k: the traces record {first.top_k} and {second.top_k} entries per position")
    top = first.top_k if l2_top is None else l2_top
    prompt_at = _core.first_divergence(first.prompt_ids, second.prompt_ids)
    same_prompt = prompt_at == max(first.prompt_ids.size, second.prompt_ids.size)
    prefill_rows = min(prompt_at, first.prefill.rows, second.prefill.rows)
    generated = min(first.decode.rows, second.decode.rows)
    common = _core.first_divergence(first.generated_ids, second.generated_ids)
    decode_rows = min(common + 1, generated) if same_prompt else 0
    return Comparison(
        prefill=_phase(first.prefill, second.prefill, prefill_rows, first.top_k, top),
        decode=_phase(first.decode, second.decode, decode_rows, first.top_k, top),
        divergence=_divergence(first, second, generated) if same_prompt else None,
        prompt_divergence=None if same_prompt else prompt_at,
        racing=second.on_path("racing"),
        unconfirmed=second.on_path("unconfirmed"),
        digests=(first.digest, second.digest),
        conditions=_conditions(first.provenance, second.provenance),
    )


def pool(summaries: Sequence[PhaseSummary]) -> PhaseSummary:
    """One phase over several prompts: sums of counts, the largest `max_abs`, and the mean of the prompts' `seeds_l2`.

    `first_difference` is that of the first summary that has one; its row counts within its own prompt.
    """
    if not summaries:
        raise ValueError("pool: expected at least one summary")
    sums = {
        key: sum(getattr(s, key) for s in summaries) for key in ("rows", "skipped", "compared", "differing", "missing")
    }
    largest = [s.max_abs for s in summaries if s.max_abs is not None]
    l2 = [s.seeds_l2 for s in summaries if s.seeds_l2 is not None]
    return PhaseSummary(
        **sums,
        max_abs=max(largest) if largest else None,
        seeds_l2=float(np.mean(l2)) if l2 else None,
        first_difference=next((s.first_difference for s in summaries if s.first_difference), None),
    )
