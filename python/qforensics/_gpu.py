"""The GPU of this process, as an executor: whether it can be used, and whether it computes what its profile says."""

from __future__ import annotations

import functools
import os

from qforensics import _core, _libtorch

__all__ = ["EXECUTORS", "chosen_executor", "gpus_of", "visible_gpu"]

EXECUTORS = ("cpu", "cuda", "native", "auto")
"""Where a model computes: ``"cuda"`` emulates on the GPU, ``"native"`` runs what it can by native kernels and emulates
the rest; ``"auto"`` is ``"cuda"`` where a GPU can be used."""


def chosen_executor(name: str) -> str:
    """``"cpu"``, ``"cuda"`` or ``"native"``; a GPU has passed its self-test (once per process).

    Raises
    ------
    ValueError
        An unknown name.
    RuntimeError
        ``"cuda"`` or ``"native"`` where no GPU can be used, with what was found and what is needed.
    """
    if name not in EXECUTORS:
        raise ValueError(f"unknown executor {name!r}; one of: {', '.join(EXECUTORS)}")
    if name == "cpu":
        return name
    reason = _why_not()
    if reason is None:
        _self_test()
        return "cuda" if name == "auto" else name
    if name == "auto":
        return "cpu"
    raise RuntimeError(f"executor {name!r} cannot be used: {reason}")


def gpus_of(executor: str, named: str | None) -> list[int]:
    """GPUs that work side by side: the named ones (``"0,1"``), or all where an executor that uses them has several.

    Raises
    ------
    ValueError
        What is no list of numbers, or a GPU that is not there.
    """
    count = 0 if executor == "cpu" or not _core.built_with_cuda else int(_core.gpu_count())
    if named is None:
        return list(range(count)) if count > 1 else []
    words = [word.strip() for word in named.split(",")]
    if not all(word.isascii() and word.isdigit() and len(word) < 4 for word in words):
        raise ValueError(f"GPUs {named!r}: expected numbers from 0, as in 0,1")
    found = [int(word) for word in words]
    if executor == "cpu":
        raise ValueError(f"GPUs {named!r}: expected none with executor 'cpu'")
    if count <= max(found):
        raise ValueError(f"GPUs {named!r}: expected numbers below {count}, the GPUs that can be used here")
    return found


def visible_gpu(index: int) -> str:
    """What CUDA_VISIBLE_DEVICES must say so that a process sees only the `index`-th of the GPUs that this one sees."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = seen.split(",") if seen is not None else None
    if index < 0 or (names is not None and index >= len(names)):
        raise ValueError(f"GPU {index}: expected a number from 0, of those in CUDA_VISIBLE_DEVICES={seen}")
    return names[index].strip() if names is not None else str(index)


def _why_not() -> str | None:
    if not _core.built_with_cuda or _core.gpu_count() == 0:
        return str(_core.why_no_gpu())
    torch, cuda = _libtorch.installed()
    if torch is None:
        return "torch is not installed; one that was built with CUDA is needed"
    if cuda is None:
        return f"torch {torch} was built without CUDA; a build with CUDA is needed"
    return None


@functools.cache
def _self_test() -> None:
    """A few thousand known steps; a GPU that contradicts its profile is refused by name."""
    try:
        _core.require_faithful_gpu(0)
    except ValueError as error:
        raise RuntimeError(f"executor 'cuda' cannot be used: {error}") from None
