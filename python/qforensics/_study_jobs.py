"""What a study asks of a model: jobs that give cells, and who runs which of them next."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qforensics._repeat_worker import Replayer
from qforensics.trace import Trace

__all__ = ["Board", "Cell", "Generate", "Job", "Replay", "Report", "Times", "replays_of"]

Cell = tuple[str | int, ...]
Report = Callable[[int, int], None]
"""Called with steps done and steps in all of a job."""


@dataclass(frozen=True)
class Generate:
    """Continues a prompt; `options` are those of ``generate``."""

    prompt: Sequence[int]
    options: Mapping[str, Any]

    def __call__(self, model: Replayer, report: Report) -> list[Trace]:
        return [model.generate(self.prompt, **self.options, **_reporting(model, report))]


@dataclass(frozen=True)
class Replay:
    """Replays references, several as one batch, and checks that their ids come back."""

    references: Sequence[Trace]

    def __call__(self, model: Replayer, report: Report) -> list[Trace]:
        more = _reporting(model, report)
        if len(self.references) == 1:
            replays = [model.teacher_force(self.references[0], **more)]
        else:
            replays = model.teacher_force_batch(self.references, **more)
        for replay, reference in zip(replays, self.references, strict=True):
            _require_same_ids(replay, reference)
        return replays


@dataclass(frozen=True)
class Job:
    """One run of a model, and the cells that its traces fill. Pickle can send it to another process."""

    cells: Sequence[Cell]
    work: Generate | Replay


def replays_of(references: Sequence[Trace], cells: Sequence[Cell]) -> list[Job]:
    """A job per reference, or one for all where they say that they are one batch, all of it and in order."""
    if _one_batch(references):
        return [Job(cells, Replay(references))]
    return [Job([cell], Replay([reference])) for cell, reference in zip(cells, references, strict=True)]


def _reporting(model: Replayer, report: Report) -> dict[str, Any]:
    """The `progress` argument, for models that say that they take one."""
    return {"progress": report} if getattr(model, "reports_progress", False) else {}


def _one_batch(references: Sequence[Trace]) -> bool:
    files = [trace.provenance.get("file") for trace in references]
    parts = [(file.get("sha256"), file.get("part"), file.get("index")) for file in files if isinstance(file, dict)]
    whole = all(trace.provenance.get("batch") == len(references) for trace in references)
    if len(references) < 2 or not whole or len(parts) < len(references):
        return False
    return parts == [(*parts[0][:2], index) for index in range(len(references))]


def _require_same_ids(replay: Trace, reference: Trace) -> None:
    same = (np.array_equal(getattr(replay, name), getattr(reference, name)) for name in ("prompt_ids", "generated_ids"))
    if not all(same):
        raise ValueError("the replay's ids are not the reference's: a replay takes ids and gives them back")


class Times:
    """What loading a variant and running one of its jobs took, in seconds; safe to share between threads."""

    def __init__(self) -> None:
        self._loads: dict[str, float] = {}
        self._jobs: dict[str, list[float]] = {}

    def loaded(self, variant: str, seconds: float) -> None:
        """Note a load."""
        self._loads[variant] = seconds

    def ran(self, variant: str, seconds: float) -> None:
        """Note a job."""
        self._jobs.setdefault(variant, []).append(seconds)

    def is_worth_a_load(self, variant: str, jobs: int) -> bool:
        """Whether so many jobs end earlier where another runner loads the model to take its share of them."""
        load, ran = self._loads.get(variant), self._jobs.get(variant)
        if load is None or not ran:
            return jobs > 1
        return jobs > 1 and load < jobs / 2 * sum(ran) / len(ran)


class Board:
    """Jobs of variants, taken one by one by runners that hold a model each; safe to share between threads.

    Parameters
    ----------
    jobs
        Variant -> its jobs, in order.
    held
        Runner -> the variant whose model it has loaded, if any. Loading takes long, so a runner goes on with its own
        variant, then takes one that no other holds, then helps the one with most jobs left, where that is worth it.
    times
        By which that is decided.
    """

    def __init__(
        self, jobs: Mapping[str, Iterable[int]], held: Mapping[Hashable, str | None], times: Times | None = None
    ) -> None:
        self._times = times or Times()
        self._left = {variant: list(indices) for variant, indices in jobs.items()}
        self._held = dict(held)
        self._lock = threading.Lock()

    def take(self, runner: Hashable) -> tuple[str, int] | None:
        """The runner's next variant and job of it; None where it can do no more."""
        with self._lock:
            variant = self._choose(runner)
            if variant is None:
                return None
            self._held[runner] = variant
            return variant, self._left[variant].pop(0)

    def abandon(self, variant: str) -> None:
        """Nobody is given another job of the variant."""
        with self._lock:
            self._left[variant] = []

    def clear(self) -> None:
        """Nobody is given another job."""
        for variant in self._left:
            self.abandon(variant)

    def _choose(self, runner: Hashable) -> str | None:
        own = self._held.get(runner)
        if own is not None and self._left.get(own):
            return own
        others = {variant for other, variant in self._held.items() if other != runner}
        free = [variant for variant, left in self._left.items() if left and variant not in others]
        if free:
            return free[0]
        worth = [name for name, left in self._left.items() if self._times.is_worth_a_load(name, len(left))]
        return max(worth, key=lambda name: len(self._left[name]), default=None)
