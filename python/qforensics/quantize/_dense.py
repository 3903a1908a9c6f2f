"""Weights as the quantizers read them: dense, in one stated dtype, finite."""

import numpy as np

from qforensics.checkpoints import Checkpoint, CheckpointError, DenseLinear
from qforensics.checkpoints._types import Array

__all__ = ["cast", "dense_weight"]


def cast(array: Array, dtype: np.dtype[np.generic], subject: str) -> Array:
    """Convert to a dense dtype, refusing what becomes infinite."""
    with np.errstate(over="ignore"):
        result = array.astype(dtype, copy=False)
    if not np.isfinite(result).all():
        raise CheckpointError(f"{subject}: expected finite values that {dtype} can hold, found Inf, NaN or larger ones")
    return result


def dense_weight(checkpoint: Checkpoint, name: str, dtype: np.dtype[np.generic]) -> Array:
    """Weight [N, K] of a layer in `dtype`, dequantized where it is packed. Its bias is a tensor of its own."""
    linear = checkpoint.linear(name)
    weight = linear.weight if isinstance(linear, DenseLinear) else linear.dequantize()
    return cast(weight, dtype, f"{checkpoint.path}: {name}")
