"""Where a study's models run: this process, or one of its own per GPU.

A worker is fed through a private pipe and ends with it, so that a killed study leaves none behind. The pickle here goes
between a process and its own child and never touches a file.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, BinaryIO, Protocol

from qforensics._repeat_worker import Replayer, child_environment, with_process
from qforensics._study_jobs import Generate, Replay
from qforensics.checkpoints._digests import adopt, known
from qforensics.trace import Trace

__all__ = ["Here", "RunError", "Runner", "Tell", "Worker", "main"]

Loader = Callable[[], Replayer]
Tell = Callable[..., None]
"""Called with ``"loading"``, ``"loaded", seconds`` or ``"part", done, total``."""


class RunError(Exception):
    """A job that failed; `lost` where the variant's further ones need not be tried."""

    def __init__(self, text: str, *, lost: bool) -> None:
        super().__init__(text)
        self.lost = lost


class Runner(Protocol):
    """Runs jobs, one at a time."""

    held: str | None
    """The variant whose model is loaded."""

    def run(self, variant: str, loader: Loader, work: Generate | Replay, tell: Tell) -> list[Trace]:
        """The job's traces; RunError where it fails."""
        ...

    def close(self) -> None:
        """Let the model go; a process ends at once, whatever it does."""
        ...


class Here:
    """Runs jobs in this process. It keeps the last model: the next stage may begin with it."""

    def __init__(self) -> None:
        self.held: str | None = None
        self._model: Replayer | None = None

    def run(self, variant: str, loader: Loader, work: Generate | Replay, tell: Tell) -> list[Trace]:
        """Load the variant unless it is the last one, then run."""
        if self.held != variant or self._model is None:
            self.close()
            tell("loading")
            began = time.monotonic()
            self._model = _attempt(loader, lost=True)
            self.held = variant
            tell("loaded", time.monotonic() - began)
        model = self._model
        traces = _attempt(lambda: work(model, lambda done, total: tell("part", done, total)), lost=False)
        return [with_process(trace) for trace in traces]

    def close(self) -> None:
        """Let the model go."""
        self.held = self._model = None


def _attempt(action: Callable[[], Any], *, lost: bool) -> Any:
    try:
        return action()
    except Exception as error:
        raise RunError(f"{type(error).__name__}: {error}", lost=lost) from error


class Worker:
    """Runs jobs in a process of its own, started when it is first needed and again where it died.

    Parameters
    ----------
    environment
        Variables of the process beside this one's.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.held: str | None = None
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._printed: BinaryIO | None = None

    def run(self, variant: str, loader: Loader, work: Generate | Replay, tell: Tell) -> list[Trace]:
        """Send the job and wait for its traces."""
        try:
            payload = pickle.dumps((known(), variant, loader, work))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            text = f"the loader cannot be sent to another process ({error}); use a module-level function"
            raise RunError(f"RuntimeError: {text}", lost=True) from None
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        self.held = variant
        try:
            pickle.dump(payload, process.stdin)
            process.stdin.flush()
            while True:
                event, *facts = pickle.load(process.stdout)
                if event == "traces":
                    return list(facts[0])
                if event == "failed":
                    raise RunError(facts[0], lost=facts[1])
                tell(event, *facts)
        except (EOFError, OSError, pickle.UnpicklingError):
            raise RunError(self._obituary(process), lost=True) from None

    def _start(self) -> subprocess.Popen[bytes]:
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the process)
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from qforensics._study_worker import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            env=child_environment(self._environment),
        )
        return self._process

    def _obituary(self, process: subprocess.Popen[bytes]) -> str:
        printed = self._printed
        assert printed is not None
        self._end(process)
        printed.seek(max(0, printed.seek(0, os.SEEK_END) - 4096))
        tail = printed.read().decode(errors="replace").strip().splitlines()[-3:]
        self.close()
        return f"RuntimeError: the worker process ended with code {process.returncode}: {' | '.join(tail)}"

    def close(self) -> None:
        """End the process, whatever it does."""
        process, self._process, self.held = self._process, None, None
        if process is not None:
            self._end(process)
            assert process.stdout is not None
            process.stdout.close()
        if self._printed is not None:
            self._printed.close()

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        with suppress(OSError):  # what it was being sent
            assert process.stdin is not None
            process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1)  # it ends by itself when its input does
        process.kill()
        process.wait()


def _read_tasks(stream: BinaryIO, tasks: queue.Queue[bytes]) -> None:
    """The end of the input is the end of this process, also in the middle of a job."""
    while True:
        try:
            tasks.put(pickle.load(stream))
        except EOFError:
            os._exit(0)


def main() -> None:
    """The worker's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's goes to the study, which ends its workers
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
        tasks: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=_read_tasks, args=(sys.stdin.buffer, tasks), daemon=True).start()
        runner = Here()

        def tell(*event: Any) -> None:
            pickle.dump(event, answers)
            answers.flush()

        while True:
            payload = tasks.get()
            try:
                digests, variant, loader, work = _attempt(lambda: pickle.loads(payload), lost=True)  # noqa: B023
                adopt(digests)
                tell("traces", runner.run(variant, loader, work, tell))
            except RunError as failure:
                tell("failed", str(failure), failure.lost)
