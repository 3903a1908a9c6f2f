"""Repeats in a process of their own: ``python -m qforensics._repeat_worker``, fed through a private pipe.

The pickle here goes from a process to its own child and never touches a file.
"""

from __future__ import annotations

import os
import pickle
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from qforensics.trace import Trace

__all__ = ["Replayer", "generate_repeats", "run_in_process", "with_process"]


class Replayer(Protocol):
    """What a study needs of a model; one with ``reports_progress = True`` takes `progress` (done, total) as well."""

    def generate(self, prompt_ids: Sequence[int], *, max_new_tokens: int) -> Trace:
        """Greedy continuation of a prompt, with logprobs."""
        ...

    def teacher_force(self, trace: Trace) -> Trace:
        """Logprobs of a trace's ids: prefill as prefill, decode as single-token decode."""
        ...

    def teacher_force_batch(self, traces: Sequence[Trace]) -> list[Trace]:
        """The same for traces that were one batch."""
        ...


STARTED = time.time_ns()
Jobs = Sequence[tuple[Sequence[int], str]]


def with_process(trace: Trace) -> Trace:
    """The trace, its provenance naming this process (host, process id, start) unless it names one."""
    own = {"host": platform.node(), "pid": os.getpid(), "started_ns": STARTED}
    return replace(trace, provenance={"process": own, **trace.provenance})


def generate_repeats(model: Replayer, jobs: Jobs, max_new_tokens: int) -> None:
    """Generate each job's prompt and save the trace at its path."""
    for prompt, path in jobs:
        trace = with_process(model.generate(prompt, max_new_tokens=max_new_tokens))
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        trace.save(path)


def run_in_process(
    loader: Callable[[], Replayer], jobs: Jobs, max_new_tokens: int, *, started: list[subprocess.Popen[bytes]]
) -> None:
    """Load the model in a new process, which is added to `started`, and run `generate_repeats` there.

    Raises
    ------
    RuntimeError
        When the loader cannot be sent to another process, or the process fails: with the end of what it printed.
    """
    try:
        payload = pickle.dumps((loader, list(jobs), max_new_tokens))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise RuntimeError(
            f"the loader cannot be sent to another process ({error}); use a module-level function"
        ) from None
    environment: Mapping[str, Any] = {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
    command = [sys.executable, "-m", "qforensics._repeat_worker"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment) as process:
        started.append(process)
        _, printed = process.communicate(payload)
    if process.returncode != 0:
        tail = printed.decode(errors="replace").strip().splitlines()[-3:]
        raise RuntimeError(f"the repeat process ended with code {process.returncode}: {' | '.join(tail)}")


def _main() -> None:
    loader, jobs, max_new_tokens = pickle.load(sys.stdin.buffer)
    generate_repeats(loader(), jobs, max_new_tokens)


if __name__ == "__main__":
    _main()
