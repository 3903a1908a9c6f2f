"""Gives memory that is no longer used back to the system."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["release_unused"]


def release_unused() -> None:
    """glibc keeps freed blocks of a few megabytes for later; after loading and after a run they are a tenth of this process."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
