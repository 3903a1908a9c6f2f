"""Gives memory that is no longer used back to the system."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["release_unused"]


def release_unused() -> None:
    """Freed blocks of a few megabytes, which glibc keeps for later: after loading a model, a tenth of this process."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
