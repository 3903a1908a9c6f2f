"""The running part of a study: cells that are computed once, kept, and counted."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

from qforensics._gpu import visible_gpu
from qforensics._repeat_worker import Replayer, generate_repeats, run_in_process
from qforensics._study_jobs import Board, Cell, Job, Times
from qforensics._study_worker import Here, RunError, Runner, Worker
from qforensics._workdir import WorkDir
from qforensics.study_result import StudyError

__all__ = ["Progress", "StudyRun", "StudyVariant"]


MAX_WORKERS = 2
"""Processes of repeats that run side by side on a GPU, or on the CPU: each holds a model."""


@dataclass(frozen=True)
class StudyVariant:
    """A hypothesis of a study.

    Parameters
    ----------
    name
        Used in files: letters, digits and ``_ . @ + -``.
    loader
        Returns the model. Other processes (repeats, GPUs) need one that pickle can name (a module-level function, or a
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


@dataclass(frozen=True)
class _Failure:
    """Of one job: its place among its variant's, and what it says."""

    job: int
    text: str


class StudyRun:
    """State of one call of `study`.

    `gpus` are those that work side by side, a process each, which sees that GPU alone; where none is named everything
    runs in this process. What is computed does not depend on them.
    """

    def __init__(
        self,
        variants: Sequence[StudyVariant],
        work: WorkDir,
        total: int,
        progress: Callable[[Progress], None] | None,
        gpus: Sequence[int] = (),
    ):
        self.variants, self.work, self.total, self.progress = variants, work, total, progress
        self.errors: list[StudyError] = []
        self.done = 0
        self._ended = False
        self._times = Times()
        self.started = time.monotonic()
        self._gpus = [{"CUDA_VISIBLE_DEVICES": visible_gpu(gpu)} for gpu in gpus]
        self._runners: list[Runner] = [Worker(environment) for environment in self._gpus] or [Here()]
        self._lock = threading.RLock()  # of what several runners change: counts, the journal, the caller's progress

    def finished(self, cell: Cell) -> None:
        with self._lock:
            self.done += 1
            if self.progress:
                name = "/".join(map(str, cell))
                self.progress(Progress(self.done, self.total, name, time.monotonic() - self.started))

    def under_way(self, name: str, part: float) -> None:
        with self._lock:
            if self.progress:
                self.progress(Progress(self.done, self.total, name, time.monotonic() - self.started, part))

    def end(self) -> None:
        """Tell the progress that nothing is left; what failed was not counted before."""
        if self.done < self.total:
            self.done = self.total - 1
            self.finished(("end",))

    def fail(self, variant: str, stage: str, text: str) -> None:
        self.errors.append(StudyError(variant, stage, text))

    def compute(self, stage: str, plan: Sequence[tuple[StudyVariant, Sequence[Job]]]) -> None:
        """Run every variant's unfinished jobs. A failure is its variant's, and the first one in order is kept."""
        jobs = {variant.name: list(mine) for variant, mine in plan}
        left = {name: [i for i, job in enumerate(mine) if not self._is_kept(job)] for name, mine in jobs.items()}
        board = Board(left, {index: runner.held for index, runner in enumerate(self._runners)}, self._times)
        failures: dict[str, list[_Failure]] = {name: [] for name in jobs}
        by_name = {variant.name: variant for variant, _ in plan}

        def take_all(index: int) -> None:
            while (taken := board.take(index)) is not None:
                name, job = taken
                try:
                    self._run(self._runners[index], by_name[name], jobs[name][job])
                except RunError as failure:
                    if self._ended:
                        return
                    if failure.lost:
                        board.abandon(name)
                    with self._lock:
                        failures[name].append(_Failure(job, str(failure)))
                        self.work.note("failed", jobs[name][job].cells[0], stage=stage, error=str(failure))

        if any(left.values()):
            self._side_by_side(take_all, board)
        for name, found in failures.items():
            if found:
                first = min(found, key=lambda failure: failure.job)
                more = f" (and {len(found) - 1} more of its runs failed)" if len(found) > 1 else ""
                self.fail(name, stage, first.text + more)

    def close(self) -> None:
        """Let the models go, and end the processes that hold them, whatever they do."""
        for runner in self._runners:
            runner.close()

    def _is_kept(self, job: Job) -> bool:
        missing = [cell for cell in job.cells if self.work.load(*cell) is None]
        for cell in job.cells:
            if cell not in missing:
                self.finished(cell)
        return not missing

    def _side_by_side(self, take_all: Callable[[int], None], board: Board) -> None:
        """One runner in this thread; several in a thread each, which waits for its process."""
        if len(self._runners) == 1 and not self._gpus:
            take_all(0)
            return
        with ThreadPoolExecutor(max_workers=len(self._runners)) as pool:
            futures = [pool.submit(take_all, index) for index in range(len(self._runners))]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:  # interrupted, or what no variant can be blamed for: the pool waits for its threads
                self._ended = True
                board.clear()
                self.close()
                raise

    def _run(self, runner: Runner, variant: StudyVariant, job: Job) -> None:
        name, began = "/".join(map(str, job.cells[0])), time.monotonic()

        def tell(event: str, *facts: Any) -> None:
            nonlocal began
            if event == "loading":
                self.under_way(f"load {variant.name}", 0.0)
            elif event == "loaded":
                began = time.monotonic()
                self._times.loaded(variant.name, facts[0])
                with self._lock:
                    self.work.note("loaded", (variant.name,), seconds=round(facts[0], 6))
            else:
                done, total = facts
                self.under_way(name, done / max(total, 1))

        traces = runner.run(variant.name, variant.loader, job.work, tell)
        seconds = (time.monotonic() - began) / len(traces)
        self._times.ran(variant.name, seconds * len(traces))
        for cell, trace in zip(job.cells, traces, strict=True):
            if self.work.load(*cell) is not None:
                continue  # a batch of which a part was kept
            with self._lock:
                try:
                    self.work.save(trace, *cell, seconds=seconds)
                except Exception as error:
                    raise RunError(f"{type(error).__name__}: {error}", lost=False) from error
                self.finished(cell)

    def repeat(
        self,
        variant: StudyVariant,
        kind: str,
        prompts: Sequence[Sequence[int]],
        runs: int,
        processes: int,
        options: Mapping[str, Any],
    ) -> None:
        """Repeats of the prompts, the r-th of each in process r mod `processes`."""
        loader = variant.loader if kind == "repeat" else variant.deterministic_loader
        assert loader is not None
        cells = [
            [(kind, variant.name, p, r) for p in range(len(prompts)) for r in range(process, runs, processes)]
            for process in range(processes)
        ]
        started: list[subprocess.Popen[bytes]] = []

        def work(process: int) -> None:
            missing = [cell for cell in cells[process] if self.work.load(*cell) is None]
            jobs = [(prompts[cell[2]], str(self.work.file(*cell))) for cell in missing]
            if jobs and (processes > 1 or self._gpus):
                environment = self._gpus[process % len(self._gpus)] if self._gpus else {}
                run_in_process(loader, jobs, options, started=started, environment=environment)
            elif jobs:
                generate_repeats(loader(), jobs, options)

        side_by_side = min(processes, MAX_WORKERS * max(len(self._gpus), 1))
        with ThreadPoolExecutor(max_workers=side_by_side) as pool:  # a thread only waits for its process
            futures = [pool.submit(work, process) for process in range(processes)]
            for mine, future in zip(cells, futures, strict=True):
                try:
                    future.result()
                except Exception as error:
                    text = f"{type(error).__name__}: {error}"
                    self.fail(variant.name, kind, text)
                    self.work.note("failed", (variant.name, kind), error=text)
                    return
                except BaseException:  # interrupted: the pool would wait for its processes
                    pool.shutdown(wait=False, cancel_futures=True)
                    for running in started:
                        running.kill()
                    raise
                for cell in mine:
                    self.finished(cell)
