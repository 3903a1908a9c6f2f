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

__all__ = ["Replayer", "child_environment", "generate_repeats", "run_in_process", "with_process"]


class Replayer(Protocol):
    """What a study needs of a model; one with ``reports_progress = True`` takes `progress` (done, total) as well."""

    def generate(self, prompt_ids: Sequence[int], *, max_new_tokens: int) -> Trace:
        """Greedy continuation of a prompt, with logprobs; takes `max_num_batched_tokens` where a study is given it."""
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


def generate_repeats(model: Replayer, jobs: Jobs, options: Mapping[str, Any]) -> None:
    """Generate each job's prompt and save the trace at its path; `options` are those of ``generate``."""
    for prompt, path in jobs:
        trace = with_process(model.generate(prompt, **options))
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        trace.save(path)


def child_environment(more: Mapping[str, str]) -> dict[str, str]:
    """Variables of a process that imports what this one can."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part), **more}


def run_in_process(
    loader: Callable[[], Replayer],
    jobs: Jobs,
    options: Mapping[str, Any],
    *,
    started: list[subprocess.Popen[bytes]],
    environment: Mapping[str, str],
) -> None:
    """Load the model in a new process, which is added to `started`, and run `generate_repeats` there.

    `environment` are variables of that process beside this one's.

    Raises
    ------
    RuntimeError
        When the loader cannot be sent to another process, or the process fails: with the end of what it printed.
    """
    try:
        payload = pickle.dumps((loader, list(jobs), options))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise RuntimeError(
            f"the loader cannot be sent to another process ({error}); use a module-level function"
        ) from None
    variables = child_environment(environment)
    command = [sys.executable, "-m", "qforensics._repeat_worker"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=variables) as process:
        started.append(process)
        _, printed = process.communicate(payload)
    if process.returncode != 0:
        tail = printed.decode(errors="replace").strip().splitlines()[-3:]
        raise RuntimeError(f"the repeat process ended with code {process.returncode}: {' | '.join(tail)}")


def _main() -> None:
    loader, jobs, options = pickle.load(sys.stdin.buffer)
    generate_repeats(loader(), jobs, options)


if __name__ == "__main__":
    _main()
