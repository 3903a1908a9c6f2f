"""LibTorch's two libraries for `_engine`, without the torch package, whose import costs 80 MB and a second more."""

from __future__ import annotations

import ctypes
import importlib.util
import runpy
import sys
from pathlib import Path
from typing import Any

__all__ = ["installed", "load", "version"]

_LIBRARIES = ("libc10.so", "libtorch_cpu.so")


def _package() -> Path | None:
    """The directory of the installed torch; None where there is none."""
    try:
        spec = importlib.util.find_spec("torch")
    except (ImportError, ValueError):
        return None
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def load(*, cuda: bool = False) -> None:
    """Load the libraries, so that `_engine`, which links to them by name, finds them in this process.

    Where they do not load by themselves (CUDA builds may need torch to find their other libraries; other systems name
    them differently), torch is imported, which loads them too. Importing torch later works as ever. `cuda` asks for
    torch's CUDA libraries as well, which only torch itself finds.

    Raises
    ------
    ImportError
        When torch is missing or does not import.
    """
    if sys.modules.get("torch") is not None:
        return
    if cuda:
        import torch

        return
    package = _package()
    try:
        if package is None:
            raise OSError("no torch")
        for name in _LIBRARIES:
            ctypes.CDLL(str(package / "lib" / name))
    except OSError:
        import torch  # noqa: F401


def version() -> tuple[str | None, str | None]:
    """Versions of torch and of its CUDA, as ``torch.__version__`` and ``torch.version.cuda`` give them.

    Both None in a process that uses neither torch nor the engine.
    """
    if sys.modules.get("torch") is None and "qforensics._engine" not in sys.modules:
        return None, None
    return installed()


def installed() -> tuple[str | None, str | None]:
    """The same of the torch that is there, whether this process uses it or not."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return str(torch.__version__), getattr(getattr(torch, "version", None), "cuda", None)
    package = _package()
    if package is None:
        return None, None
    facts: dict[str, Any] = runpy.run_path(str(package / "version.py"))
    return str(facts["__version__"]), facts.get("cuda")
