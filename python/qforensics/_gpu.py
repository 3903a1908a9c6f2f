"""The GPU of this process, as an executor: whether it can be used, and whether it computes what its profile says."""

from __future__ import annotations

import functools

from qforensics import _core, _libtorch

__all__ = ["EXECUTORS", "chosen_executor"]

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
