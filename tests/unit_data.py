"""Rows of products for matrix units, in as many ways as there are to leave the ordinary path."""

import zlib

import ml_dtypes
import numpy as np

DTYPES = {
    "fp16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
}
# (smallest, largest) exponent of a value drawn at random
EXPONENTS = {
    "fp16": (-24, 15),
    "bf16": (-133, 127),
    "tf32": (-136, 127),
    "e4m3": (-9, 8),
    "e5m2": (-16, 15),
    "fp32": (-149, 127),
}
FAMILIES = ["normal", "wide", "cancelling", "subnormal", "zeros", "special"]


def to_format(x: np.ndarray, dtype: str) -> np.ndarray:
    """Nearest values of the format, finite ones kept finite."""
    if dtype == "fp32":
        return x.astype(np.float32)
    if dtype == "tf32":
        return (x.astype(np.float32).view(np.uint32) & 0xFFFFE000).view(np.float32)
    with np.errstate(over="ignore"):
        narrow = x.astype(np.float32).astype(DTYPES[dtype]).astype(np.float32)
    return np.where(np.isfinite(narrow), narrow, np.float32(1.0))


def draw(rng: np.random.Generator, shape: tuple[int, ...], dtype: str, family: str) -> np.ndarray:
    low, high = EXPONENTS[dtype]
    if family == "subnormal":
        high = low + 12
    if family == "wide":
        with np.errstate(over="ignore"):
            x = rng.choice([-1.0, 1.0], shape) * rng.uniform(1, 2, shape) * np.exp2(rng.integers(low, high + 1, shape))
        return to_format(np.clip(x, -3e38, 3e38), dtype)
    if family == "subnormal":
        return to_format(rng.normal(size=shape) * np.exp2(rng.integers(low, high, shape)), dtype)
    return to_format(rng.normal(size=shape), dtype)


def cases(
    name: str, dtype: str, out: str, family: str, rows: int, length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(zlib.crc32(f"{name} {dtype} {out} {family}".encode()))
    a, b = draw(rng, (rows, length), dtype, family), draw(rng, (rows, length), dtype, family)
    c = draw(rng, (rows,), out, family)
    if family == "cancelling":  # every product but two has its negative in the row: what is left lies far below
        half = length // 2
        order = np.argsort(rng.random((rows, length)), axis=1)
        big = to_format(a * 2.0 ** rng.integers(0, 5, (rows, length)), dtype)
        big[:, half:] = -big[:, : length - half]
        b[:, half:] = b[:, : length - half]
        a, b = np.take_along_axis(big, order, 1), np.take_along_axis(b, order, 1)
        a[:, :2] = to_format(a[:, :2] * 2.0**-6, dtype)
        c *= rng.choice([0, 2.0**-4, 1], rows).astype(np.float32)
        c = to_format(c, out)
    if family == "zeros":
        a[rng.random(a.shape) < 0.6] = 0.0
        a[: rows // 4] = 0.0
        b[rng.random(b.shape) < 0.2] = -0.0
        c[rng.random(rows) < 0.5] = rng.choice([0.0, -0.0])
    if family == "special":
        infinite = dtype != "e4m3"
        for array in (a, b, c):
            chosen = rng.random(array.shape) < (0.02 if array.ndim == 2 else 0.1)
            values = [np.nan, np.inf, -np.inf, np.inf, -np.inf] if infinite or array is c else [np.nan]
            array[chosen] = rng.choice(values, int(chosen.sum()))
        a[rng.random(a.shape) < 0.1] = 0.0
    return a, b, c
