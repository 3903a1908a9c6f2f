"""The work directory of a study: a finished cell is a trace file, so a kill loses only the unfinished one."""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from pathlib import Path
from typing import Any, Self

from qforensics._json import JsonFileError, canonical_json, parse_json, read_json, write_atomic
from qforensics.container import ContainerError
from qforensics.trace import Trace

__all__ = ["WorkDir", "check_name"]

PLAN, JOURNAL, LOCK = "plan.json", "journal.jsonl", ".lock"
MAX_PLAN_BYTES = 1 << 26


def check_name(name: str) -> str:
    """The name back, or ValueError when it cannot be part of a file name."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,99}", name):
        raise ValueError(
            f"name {name!r}: expected letters, digits and _ . @ + - (at most 100, not starting with . @ + -)"
        )
    return name


def _differences(found: Any, plan: Any, name: str = "") -> list[str]:
    """Names of the entries that differ."""
    if not isinstance(found, dict) or not isinstance(plan, dict):
        return [] if canonical_json(found) == canonical_json(plan) else [name]
    keys = sorted({*found, *plan})
    parts = (_differences(found.get(key), plan.get(key), f"{name}.{key}" if name else key) for key in keys)
    return [part for names in parts for part in names]


class WorkDir:
    """Traces by cell name, the plan they belong to, and a journal of what happened.

    A context manager: one process at a time works in a directory; the system frees the lock of one that dies.

    Parameters
    ----------
    path
        Directory; made when absent.
    plan
        JSON-able: everything that the cells depend on. A directory with another plan is refused.

    Raises
    ------
    ValueError
        When the directory belongs to another study.
    RuntimeError
        When another process is at work there.
    """

    def __init__(self, path: str | os.PathLike[str], plan: dict[str, Any]) -> None:
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.path / LOCK, "wb")  # noqa: SIM115 (held until the work ends)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._claim(plan)
        except BaseException as error:
            self._lock.close()
            if isinstance(error, BlockingIOError):
                raise RuntimeError(f"{self.path}: another process is at work there; wait, or choose another") from None
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def _claim(self, plan: dict[str, Any]) -> None:
        file = self.path / PLAN
        if file.exists():
            found = read_json(file, limit=MAX_PLAN_BYTES)
            if not isinstance(found, dict):
                raise JsonFileError(file, "file", "a plan (an object)", type(found).__name__)
            if canonical_json(found) != canonical_json(plan):
                raise ValueError(
                    f"{file}: belongs to another study (not the same: {', '.join(_differences(found, plan))}); "
                    "choose another directory, or remove this one"
                )
        else:
            write_atomic(file, (json.dumps(plan, indent=2) + "\n").encode())
        self._end_torn_line()

    def _end_torn_line(self) -> None:
        """A kill can leave half a journal line: close it, so that the next entry starts on its own."""
        file = self.path / JOURNAL
        if file.exists() and (text := file.read_bytes()) and not text.endswith(b"\n"):
            with open(file, "ab") as journal:
                journal.write(b"\n")

    def file(self, *cell: str | int) -> Path:
        """Path of a cell's trace; parts are checked names or indices."""
        parts = [check_name(str(part)) for part in cell]
        return self.path.joinpath("traces", *parts[:-1], f"{parts[-1]}.trace")

    def load(self, *cell: str | int) -> Trace | None:
        """A finished cell, or None. A file that is refused is set aside, noted, and counts as unfinished."""
        file = self.file(*cell)
        if not file.exists():
            return None
        try:
            return Trace.load(file)
        except ContainerError as error:
            file.replace(file.with_suffix(".refused"))
            self.note("refused", cell, error=str(error))
            return None

    def save(self, trace: Trace, *cell: str | int, seconds: float) -> None:
        """Keep a finished cell: the trace first, atomically, then the journal's line."""
        file = self.file(*cell)
        file.parent.mkdir(parents=True, exist_ok=True)
        trace.save(file)
        self.note("done", cell, seconds=round(seconds, 6), digest=trace.digest)

    def note(self, event: str, cell: tuple[str | int, ...], **facts: Any) -> None:
        """Append a line to the journal and force it to disk."""
        line = canonical_json({"time": time.time(), "event": event, "cell": "/".join(map(str, cell)), **facts})
        file = self.path / JOURNAL
        try:
            with open(file, "a", encoding="utf-8") as journal:
                journal.write(line + "\n")
                journal.flush()
                os.fsync(journal.fileno())
        except OSError as error:  # a full disk's error names no file
            raise OSError(error.errno, error.strerror, str(file)) from None

    def journal(self) -> list[dict[str, Any]]:
        """Entries of the journal; a line that a kill cut short is left out."""
        file = self.path / JOURNAL
        found = []
        for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
            try:
                found.append(parse_json(line))
            except ValueError:
                continue
        return found
