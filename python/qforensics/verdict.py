"""Verdicts: what comparisons say about a claim, and what they cannot say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any, Literal

from qforensics import _html
from qforensics.comparison import Comparison
from qforensics.noise import NoiseFloor
from qforensics.trace import PHASES

__all__ = ["HypothesisCount", "Verdict", "judge"]

Outcome = Literal["match", "mismatch", "inconclusive"]


@dataclass(frozen=True)
class HypothesisCount:
    """A hypothesis against the evidence. `decisive` counts differing entries where exactness had to hold."""

    name: str
    differing: int
    compared: int
    skipped: int
    decisive: int

    @property
    def exact(self) -> bool:
        """Whether every entry was compared and none differs."""
        return self.compared > 0 and self.differing == 0 and self.skipped == 0


@dataclass(frozen=True, repr=False)
class Verdict:
    """Answer to one claim: `excluded`, `matching` and `undecided` sort all hypotheses, the claimed one included."""

    claim: str
    outcome: Outcome
    reasons: tuple[str, ...]
    counts: tuple[HypothesisCount, ...]
    excluded: tuple[str, ...]
    matching: tuple[str, ...]
    undecided: tuple[str, ...]
    digests: tuple[tuple[str, str], ...]

    @property
    def claimed(self) -> HypothesisCount:
        """Counts of the claimed hypothesis."""
        return next(count for count in self.counts if count.name == self.claim)

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        data = {key: getattr(self, key) for key in ("claim", "outcome")}
        lists = {key: list(getattr(self, key)) for key in ("reasons", "excluded", "matching", "undecided")}
        return (
            data
            | lists
            | {"counts": [asdict(c) for c in self.counts], "digests": [list(pair) for pair in self.digests]}
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Verdict:
        """Inverse of `to_json`."""
        lists = {key: tuple(data[key]) for key in ("reasons", "excluded", "matching", "undecided")}
        counts = tuple(HypothesisCount(**count) for count in data["counts"])
        return cls(
            data["claim"], data["outcome"], counts=counts, digests=tuple((a, b) for a, b in data["digests"]), **lists
        )

    def __repr__(self) -> str:
        return f"Verdict({self.claim}: {self.outcome}; {self.reasons[0]})"

    def _repr_html_(self) -> str:
        rows = [(c.name, f"{c.differing:,}", f"{c.compared:,}", self._role(c.name)) for c in self.counts]
        table = _html.table(rows, head=("hypothesis", "differing", "compared", ""))
        reasons = _html.table([(reason,) for reason in self.reasons])
        return _html.section(f"claim: {self.claim} ", _html.badge(self.outcome), reasons, table)

    def _role(self, name: str) -> str:
        if name in self.matching:
            return "matches"
        return "excluded" if name in self.excluded else "undecided"


def _path(comparisons: Sequence[Comparison], key: str, phase: str) -> tuple[str, ...]:
    return tuple(sorted({name for c in comparisons for name in getattr(c, key)[phase]}))


def _count(name: str, comparisons: Sequence[Comparison]) -> HypothesisCount:
    decisive = sum(
        getattr(c, phase).differing
        for c in comparisons
        for phase in PHASES
        if not c.racing[phase] and not c.unconfirmed[phase] and not c.conditions
    )
    return HypothesisCount(
        name=name,
        differing=sum(c.differing for c in comparisons),
        compared=sum(c.compared for c in comparisons),
        skipped=sum(c.prefill.skipped + c.decode.skipped for c in comparisons),
        decisive=decisive,
    )


def _doubts(comparisons: Sequence[Comparison], floor: NoiseFloor | None) -> list[str]:
    """Why a difference under this hypothesis does not exclude it."""
    found = list(dict.fromkeys(condition for c in comparisons for condition in c.conditions))
    for phase in PHASES:
        if racing := _path(comparisons, "racing", phase):
            found.append(f"racing atomics on the {phase} path: {', '.join(racing)}")
        if unconfirmed := _path(comparisons, "unconfirmed", phase):
            found.append(
                f"definitions that no recording confirms on the {phase} path, and not exact: {', '.join(unconfirmed)}"
            )
    if any(_path(comparisons, "racing", phase) for phase in PHASES):
        if floor is None:
            found.append("no fitted noise floor for the claimed hypothesis")
        else:
            found.append(f"the floor ({floor!r}) has no calibrated test against it")
    return found


def _claimed_reasons(
    count: HypothesisCount, comparisons: Sequence[Comparison], floor: NoiseFloor | None
) -> tuple[Outcome, list[str]]:
    if count.compared == 0:
        return "inconclusive", ["nothing was compared: no position has the same context in both traces"]
    text = f"{count.differing:,} of {count.compared:,} logprobs differ"
    if count.exact:
        return "match", [text]
    if count.decisive:
        first = next(str(d) for c in comparisons for p in PHASES if (d := getattr(c, p).first_difference))
        return "mismatch", [f"{text} under {count.name}; the first: {first}"]
    if count.differing == 0:
        return "inconclusive", [f"{text}, and {count.skipped:,} positions could not be compared (other contexts)"]
    return "inconclusive", [text, *_doubts(comparisons, floor)]


def judge(
    claim: str, comparisons: Mapping[str, Comparison | Sequence[Comparison]], *, floor: NoiseFloor | None = None
) -> Verdict:
    """Judge one claim by exactness.

    Parameters
    ----------
    claim
        Name of the claimed hypothesis.
    comparisons
        Hypothesis -> comparisons of the reference with that hypothesis' replay (one, or one per prompt).
    floor
        Noise floor of the claimed hypothesis, where its path races.

    Returns
    -------
    Verdict
        *match*: the claimed replay was compared in full and 0 logprobs differ. *mismatch*: logprobs differ in a phase
        in which exactness had to hold, or another hypothesis gives every bit. *inconclusive*: they differ only where
        something on the path races or is not confirmed, where the replay was not run as the reference was (a batch, a
        compiled engine), or something could not be compared. There are no thresholds.

    Raises
    ------
    ValueError
        When the claim is not among the hypotheses (with the close matches), or one has no comparison.
    """
    if not comparisons:
        raise ValueError(f"claim {claim!r}: expected comparisons with at least the claimed hypothesis, found none")
    if claim not in comparisons:
        close = get_close_matches(claim, list(comparisons)) or sorted(comparisons)
        raise ValueError(f"claim {claim!r} is not among the hypotheses; did you mean {', '.join(close)}?")
    lists = {name: [found] if isinstance(found, Comparison) else list(found) for name, found in comparisons.items()}
    if empty := [name for name, found in lists.items() if not found]:
        raise ValueError(f"no comparison for {', '.join(empty)}")
    counts = tuple(_count(name, found) for name, found in lists.items())
    matching = tuple(count.name for count in counts if count.exact)
    # One hypothesis that gives every bit settles the others too, also those whose own replay could not exclude them.
    identified = any(count.exact and count.compared for count in counts)
    excluded = tuple(c.name for c in counts if c.decisive or (identified and c.differing))
    undecided = tuple(count.name for count in counts if count.name not in matching + excluded)
    outcome, reasons = _claimed_reasons(next(c for c in counts if c.name == claim), lists[claim], floor)
    others = [name for name in matching if name != claim]
    if outcome == "inconclusive" and claim in excluded:
        outcome = "mismatch"
        reasons = [reasons[0], f"another hypothesis gives every one of these bits: {', '.join(others)}"]
    elif others:
        reasons.append(
            ("also 0 differing, so not told apart: " if outcome == "match" else "0 differing under: ")
            + ", ".join(others)
        )
    for count in counts:
        if count.name in excluded and count.name != claim:
            reasons.append(f"excluded: {count.name} ({count.differing:,} of {count.compared:,} differ)")
    digests = tuple(c.digests for c in lists[claim])
    return Verdict(claim, outcome, tuple(reasons), counts, excluded, matching, undecided, digests)
