"""The running part of a study: cells that are computed once, kept, and counted."""

from __future__ import annotations

import functools
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qforensics._repeat_worker import Replayer, generate_repeats, run_in_process, with_process
from qforensics._workdir import WorkDir
from qforensics.study_result import StudyError
from qforensics.trace import Trace

__all__ = ["Progress", "StudyRun", "StudyVariant", "generate_job", "replay_jobs"]


MAX_WORKERS = 2
"""Processes of repeats that run side by side: each holds a model."""


@dataclass(frozen=True)
class StudyVariant:
    """A hypothesis of a study.

    Parameters
    ----------
    name
        Used in files: letters, digits and ``_ . @ + -``.
    loader
        Returns the model. Repeats in other processes need one that pickle can name (a module-level function, or a
        `functools.partial` of one).
    deterministic_loader
        The same in deterministic mode, where there is one.
    description
        For people.
    identity
        JSON-able: what the loader loads (digests, device, profile). A resumed study refuses another one.
    """

    name: str
    loader: Callable[[], Replayer]
    deterministic_loader: Callable[[], Replayer] | None = None
    description: str = ""
    identity: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """`done` of `total` cells are finished; `cell` is the latest, `seconds` since the study began.

    `part` (0 to 1) is how much is done of a `cell` under way; `None` where `cell` has just been finished.
    """

    done: int
    total: int
    cell: str
    seconds: float
    part: float | None = None


Report = Callable[[int, int], None]
"""Called with steps done and steps in all of a job."""
Work = Callable[[Replayer, Report], Trace]
Job = tuple[tuple[str | int, ...], Work]


class StudyRun:
    """State of one call of `study`."""

    def __init__(
        self, variants: Sequence[StudyVariant], work: WorkDir, total: int, progress: Callable[[Progress], None] | None
    ):
        self.variants, self.work, self.total, self.progress = variants, work, total, progress
        self.errors: list[StudyError] = []
        self.done = 0
        self.started = time.monotonic()

    def finished(self, cell: tuple[str | int, ...]) -> None:
        self.done += 1
        if self.progress:
            name = "/".join(map(str, cell))
            self.progress(Progress(self.done, self.total, name, time.monotonic() - self.started))

    def under_way(self, name: str, part: float) -> None:
        if self.progress:
            self.progress(Progress(self.done, self.total, name, time.monotonic() - self.started, part))

    def _report(self, name: str, done: int, total: int) -> None:
        self.under_way(name, done / max(total, 1))

    def end(self) -> None:
        """Tell the progress that nothing is left; what failed was not counted before."""
        if self.done < self.total:
            self.done = self.total - 1
            self.finished(("end",))

    def fail(self, variant: str, stage: str, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        self.errors.append(StudyError(variant, stage, text))
        self.work.note("failed", (variant, stage), error=text)

    def compute(self, variant: StudyVariant, stage: str, jobs: Sequence[Job]) -> None:
        """Run a variant's unfinished jobs; its first failure ends its stage, not the study."""
        missing = []
        for cell, job in jobs:
            if self.work.load(*cell) is None:
                missing.append((cell, job))
            else:
                self.finished(cell)
        if not missing:
            return
        try:
            self.under_way(f"load {variant.name}", 0.0)
            model = variant.loader()
            for cell, job in missing:
                began, name = time.monotonic(), "/".join(map(str, cell))
                trace = with_process(job(model, functools.partial(self._report, name)))
                self.work.save(trace, *cell, seconds=time.monotonic() - began)
                self.finished(cell)
        except Exception as error:
            self.fail(variant.name, stage, error)

    def repeat(
        self, variant: StudyVariant, kind: str, prompts: Sequence[Sequence[int]], runs: int, processes: int, length: int
    ) -> None:
        """Repeats of the prompts, the r-th of each in process r mod `processes`."""
        loader = variant.loader if kind == "repeat" else variant.deterministic_loader
        assert loader is not None
        cells = [
            [(kind, variant.name, p, r) for p in range(len(prompts)) for r in range(process, runs, processes)]
            for process in range(processes)
        ]

        started: list[subprocess.Popen[bytes]] = []

        def work(mine: Sequence[tuple[str, str, int, int]]) -> None:
            missing = [cell for cell in mine if self.work.load(*cell) is None]
            jobs = [(prompts[cell[2]], str(self.work.file(*cell))) for cell in missing]
            if jobs and processes > 1:
                run_in_process(loader, jobs, length, started=started)
            elif jobs:
                generate_repeats(loader(), jobs, length)

        with ThreadPoolExecutor(max_workers=min(processes, MAX_WORKERS)) as pool:  # a thread only waits for its process
            for mine, future in [(mine, pool.submit(work, mine)) for mine in cells]:
                try:
                    future.result()
                except Exception as error:
                    self.fail(variant.name, kind, error)
                    return
                except BaseException:  # interrupted: the pool would wait for its processes
                    pool.shutdown(wait=False, cancel_futures=True)
                    for process in started:
                        process.kill()
                    raise
                for cell in mine:
                    self.finished(cell)


def _reporting(model: Replayer, report: Report) -> dict[str, Any]:
    """The `progress` argument, for models that say that they take one."""
    return {"progress": report} if getattr(model, "reports_progress", False) else {}


def replay_jobs(references: Sequence[Trace]) -> list[Work]:
    """A job per reference, for one model, that replays it and checks that its ids came back.

    References that say they are one batch, all of it and in order, are replayed as one.
    """
    together = _one_batch(references)
    replays: list[Trace] = []

    def job(index: int, model: Replayer, report: Report) -> Trace:
        more = _reporting(model, report)
        if not together:
            return _same_ids(model.teacher_force(references[index], **more), references[index])
        if not replays:
            replays.extend(model.teacher_force_batch(references, **more))
        return _same_ids(replays[index], references[index])

    return [functools.partial(job, index) for index in range(len(references))]


def _one_batch(references: Sequence[Trace]) -> bool:
    files = [trace.provenance.get("file") for trace in references]
    parts = [(file.get("sha256"), file.get("part"), file.get("index")) for file in files if isinstance(file, dict)]
    whole = all(trace.provenance.get("batch") == len(references) for trace in references)
    if len(references) < 2 or not whole or len(parts) < len(references):
        return False
    return parts == [(*parts[0][:2], index) for index in range(len(references))]


def _same_ids(replay: Trace, reference: Trace) -> Trace:
    same = (np.array_equal(getattr(replay, name), getattr(reference, name)) for name in ("prompt_ids", "generated_ids"))
    if not all(same):
        raise ValueError("the replay's ids are not the reference's: a replay takes ids and gives them back")
    return replay


def generate_job(prompt: Sequence[int], length: int) -> Work:
    """A job that continues a prompt."""
    return lambda model, report: model.generate(prompt, max_new_tokens=length, **_reporting(model, report))
