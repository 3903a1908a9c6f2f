"""Digests of files that did not change, computed once per process: hashing a checkpoint takes as long as loading it."""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

__all__ = ["adopt", "known", "remembered"]

_SETTLED_NS = 2_000_000_000
_Key = tuple[tuple[str, int, int, int, int, int], ...]
_known: dict[tuple[str, _Key], str] = {}
_computing: defaultdict[tuple[str, _Key], threading.Lock] = defaultdict(threading.Lock)


def remembered(kind: str, files: Iterable[Path], compute: Callable[[], str]) -> str:
    """Return `compute()`, or what it returned for the same files.

    The same: path, device, inode, size and both times of change (a write sets one of them even where the other is set
    back). Files changed in the last two seconds are always read, since a further write may leave the times as they are;
    so are files that change while they are read.

    Parameters
    ----------
    kind
        What is computed over the files: another kind has other results.
    """
    paths = list(files)
    before = _state(paths)
    with _computing[kind, before]:  # a second thread waits for the first one's digest
        return _remembered(kind, paths, before, compute)


def known() -> dict[tuple[str, _Key], str]:
    """What is remembered, for `adopt` in a process of this one's."""
    return dict(_known)


def adopt(others: dict[tuple[str, _Key], str]) -> None:
    """Remember what another process found; files that changed since are read again."""
    _known.update(others)


def _remembered(kind: str, paths: list[Path], before: _Key, compute: Callable[[], str]) -> str:
    begun = time.time_ns()
    if (kind, before) in _known:
        return _known[kind, before]
    digest = compute()
    newest = max((max(mtime, ctime) for *_, mtime, ctime in before), default=begun)
    if newest + _SETTLED_NS < begun and _state(paths) == before:
        _known[kind, before] = digest
    return digest


def _state(paths: Iterable[Path]) -> _Key:
    """Empty where a file cannot be looked at, so that it is read, which says why."""
    found = []
    for path in paths:
        try:
            stat, real = os.stat(path), str(path.resolve())
        except OSError:
            return ()
        found.append((real, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
    return tuple(found)
