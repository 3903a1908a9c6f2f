"""Arrays at the border to ``_core``: the number formats both sides know, and refusals that name the argument."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

__all__ = ["DTYPES", "FLOATS", "FORMATS", "HALVES", "describe", "integers", "require_dtype", "to_bits"]

#: Name of the format that ``_core`` calls so -> dtype, and the other way round.
DTYPES: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {"fp16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16), "fp32": np.dtype(np.float32)}
)
FORMATS: Mapping[np.dtype[Any], str] = MappingProxyType({dtype: name for name, dtype in DTYPES.items()})
HALVES = (DTYPES["fp16"], DTYPES["bf16"])
FLOATS = tuple(DTYPES.values())


def describe(value: object) -> str:
    """What an argument is, for an error: dtype and shape of an array, the type of anything else."""
    if not isinstance(value, np.ndarray | np.generic):
        return type(value).__name__
    return f"{value.dtype} {list(value.shape)}"


def require_dtype(name: str, value: object, *dtypes: np.dtype[Any]) -> NDArray[Any]:
    """The array back, or TypeError, naming the argument, when it is none or of another dtype."""
    if not isinstance(value, np.ndarray | np.generic) or value.dtype not in dtypes:
        raise TypeError(f"{name}: expected a {' or '.join(map(str, dtypes))} array, found {describe(value)}")
    return np.asarray(value)


def integers(name: str, value: object) -> NDArray[np.int64]:
    """Whole numbers (an array, or a list) as C-contiguous int64; TypeError for anything else."""
    array = np.asarray(value)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name}: expected integers, found {describe(array)}")
    return np.ascontiguousarray(array, np.int64)


def to_bits(name: str, value: object, *dtypes: np.dtype[Any]) -> NDArray[Any]:
    """The array as ``_core`` takes it: C-contiguous, 16-bit floats as uint16 bits. By default any of `FLOATS`."""
    array = np.asarray(require_dtype(name, value, *(dtypes or FLOATS)), order="C")
    return array if array.dtype == np.float32 else array.view(np.uint16)
