"""Round to nearest: a scale and a zero point per group of K, from the group's extremes alone.

Every function takes the float weight [N, K] and returns a `QuantizedLinear`. Arithmetic is float32 with scales
rounded to their stored type *before* the codes are chosen; ties go to even. Sources: AutoAWQ's
`pseudo_quantize_tensor`, torchao's `quant_primitives.py`, NNCF's `weight_lowering.py`; the checkpoints of the recorded
runs, which `awq` and `gptq` reproduce byte for byte.
"""

from collections.abc import Callable
from typing import TypeVar

import ml_dtypes
import numpy as np
import numpy.typing as npt

from qforensics.checkpoints import QuantizedLinear

__all__ = ["METHODS", "awq", "compressed_tensors", "gptq", "openvino", "pytorch_int4"]

T = TypeVar("T", bound=np.generic)

Weights = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]

_TINY = np.float32(1e-5)  # least range of a group, so that a group of zeros has a scale


def _groups(weight: Weights, group_size: int) -> Floats:
    """Weight [N, K] -> float32 [N, K/G, G], a new array."""
    n, k = weight.shape
    size = k if group_size == -1 else group_size
    if size < 1 or k % size:
        raise ValueError(f"group size: expected -1 or a divisor of K = {k}, found {group_size}")
    values = weight.astype(np.float32).reshape(n, k // size, size)
    if not np.isfinite(values).all():
        raise ValueError("weight: expected finite values, found Inf or NaN")
    return values


def _columns(rows: npt.NDArray[T]) -> npt.NDArray[T]:
    return np.ascontiguousarray(rows.T)


def _codes(values: Floats, scales: Floats, zeros: Floats | np.float32) -> npt.NDArray[np.uint8]:
    """clamp(round(values / scales) + zeros, 0, 15) as uint8 [K, N]; destroys `values`."""
    values /= scales[..., None]
    np.rint(values, out=values)
    values += zeros if isinstance(zeros, np.float32) else zeros[..., None]
    np.clip(values, 0, 15, out=values)
    return np.ascontiguousarray(values.astype(np.uint8).reshape(values.shape[0], -1).T)


def awq(weight: Weights, group_size: int = 128) -> QuantizedLinear:
    """AWQ's form: s = fp16(max(range, 1e-5) / 15), z = clamp(round(-min/s)), q = clamp(round(w/s) + z).

    Examples
    --------
    >>> layer = awq(np.array([[-1.0, 0.0, 0.5, 2.0]], np.float16), -1)
    >>> layer.codes[:, 0], layer.zeros[0, 0], layer.scales[0, 0]
    (array([ 0,  5,  8, 15], dtype=uint8), np.uint8(5), np.float16(0.2))
    """
    values = _groups(weight, group_size)
    high = np.maximum(values.max(axis=2), np.float32(0))
    low = np.minimum(values.min(axis=2), np.float32(0))
    scales = (np.maximum(high - low, _TINY) / np.float32(15)).astype(np.float16)
    zeros = np.clip(np.rint(-low / scales.astype(np.float32)), 0, 15)
    codes = _codes(values, scales.astype(np.float32), zeros)
    return QuantizedLinear(codes, _columns(zeros.astype(np.uint8)), _columns(scales), group_size=group_size)


def gptq(weight: Weights, group_size: int = 128) -> QuantizedLinear:
    """GPTQ's symmetric form: s = fp16(max(absmax, 1e-5) / 7.5), q = clamp(round(w/s) + 8), z = 8."""
    values = _groups(weight, group_size)
    scales = (np.maximum(np.abs(values).max(axis=2), _TINY) / np.float32(7.5)).astype(np.float16)
    zeros = np.full(scales.T.shape, 8, np.uint8)
    codes = _codes(values, scales.astype(np.float32), np.float32(8))
    return QuantizedLinear(codes, zeros, _columns(scales), group_size=group_size)


def compressed_tensors(weight: Weights, group_size: int = 128) -> QuantizedLinear:
    """llm-compressor's W4A16: the numbers of `gptq` (range 15, symmetric), in another container."""
    return gptq(weight, group_size)


def pytorch_int4(weight: Weights, group_size: int = 128) -> QuantizedLinear:
    """tinygemm's form: w read as bfloat16, s = bf16((max - min) / 15), w = (q - 8) s + o with o = bf16(min + 8 s)."""
    values = _groups(weight.astype(ml_dtypes.bfloat16), group_size)
    high, low = values.max(axis=2), values.min(axis=2)
    scales = (np.maximum(high - low, _TINY) / np.float32(15)).astype(ml_dtypes.bfloat16)
    exact = scales.astype(np.float32)
    offsets = (low + np.float32(8) * exact).astype(ml_dtypes.bfloat16).astype(np.float32)
    values -= offsets[..., None]
    codes = _codes(values, exact, np.float32(8))
    zeros = np.full(scales.T.shape, 8, np.uint8)
    return QuantizedLinear(
        codes, zeros, _columns(scales), group_size=group_size, offsets=np.ascontiguousarray(offsets.T)
    )


def openvino(weight: Weights, group_size: int = 128, *, bits: int = 4) -> QuantizedLinear:
    """NNCF's asymmetric form, bit for bit what NNCF 3.4.0 makes of float16 weights without data.

    s = max(range / (2**bits - 1), 2**-23) in float32, z = round(-min/s), q = clamp(round(w/s + z)) with that float32 s,
    which is rounded to float16 only when stored. 8 bits with one group per row: embeddings.
    """
    values = _groups(weight, group_size)
    top = np.float32((1 << bits) - 1)
    high = np.maximum(values.max(axis=2), np.float32(0))
    low = np.minimum(values.min(axis=2), np.float32(0))
    scales = np.maximum((high - low) / top, np.finfo(np.float32).eps)
    zeros = np.clip(np.rint(-low / scales), 0, top)
    values /= scales[..., None]
    values += zeros[..., None]
    np.clip(np.rint(values, out=values), 0, top, out=values)
    codes = np.ascontiguousarray(values.astype(np.uint8).reshape(weight.shape).T)
    stored = _columns(scales.astype(np.float16))
    return QuantizedLinear(codes, _columns(zeros.astype(np.uint8)), stored, group_size=group_size, bits=bits)


#: Quantizer of each method name.
METHODS: dict[str, Callable[[Weights, int], QuantizedLinear]] = {
    "awq": awq,
    "gptq": gptq,
    "compressed-tensors": compressed_tensors,
    "pytorch_int4": pytorch_int4,
    "openvino": openvino,
}
