"""Narrow formats against ml_dtypes: every code decoded, every rounding boundary encoded."""

import ml_dtypes
import numpy as np
import pytest

from qforensics import _core

FORMATS = {
    "fp16": (np.uint16, np.float16, 16),
    "bf16": (np.uint16, ml_dtypes.bfloat16, 16),
    "e4m3": (np.uint8, ml_dtypes.float8_e4m3fn, 8),
    "e5m2": (np.uint8, ml_dtypes.float8_e5m2, 8),
}


def all_values(name: str) -> tuple[np.ndarray, np.ndarray]:
    code, dtype, bits = FORMATS[name]
    codes = np.arange(1 << bits).astype(code)
    return codes, codes.view(dtype).astype(np.float32)


def boundaries(values: np.ndarray) -> np.ndarray:
    """The values, the midpoints between neighbours, and the fp32 neighbours of both."""
    finite = np.unique(values[np.isfinite(values)])
    middle = ((finite[1:].astype(np.float64) + finite[:-1]) / 2).astype(np.float32)
    largest = finite[-1]
    with np.errstate(over="ignore"):
        beyond = (largest + (np.float64(largest) - finite[-2]) * np.arange(0.0, 4.0, 0.25)).astype(np.float32)
        points = np.concatenate([finite, middle, beyond, -beyond])
        return np.concatenate([points, *(np.nextafter(points, np.float32(side)) for side in (np.inf, -np.inf))])


def wide(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2**32, 300_000, dtype=np.uint64).astype(np.uint32)
    special = np.float32([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1.1754942e-38, 3.4e38, -3.4e38])
    return np.concatenate([bits.view(np.float32), special, np.uint32([0x7F800001, 0xFFC12345]).view(np.float32)])


@pytest.mark.parametrize("name", FORMATS)
def test_every_code_decodes(name: str) -> None:
    codes, expected = all_values(name)
    found = getattr(_core, f"decode_{name}")(codes)
    nan = np.isnan(expected)
    assert np.array_equal(np.isnan(found), nan)
    assert np.array_equal(found[~nan].view(np.uint32), expected[~nan].view(np.uint32))


@pytest.mark.parametrize("name", FORMATS)
def test_encode_rounds_to_nearest_even(name: str) -> None:
    code, dtype, _ = FORMATS[name]
    x = np.concatenate([boundaries(all_values(name)[1]), boundaries(all_values("fp16")[1]), wide(1)])
    with np.errstate(over="ignore", invalid="ignore"):
        expected = x.astype(dtype)
    found = getattr(_core, f"encode_{name}")(x)
    nan = np.isnan(expected.astype(np.float32))
    assert np.array_equal(np.isnan(found.view(dtype).astype(np.float32)), nan)
    wrong = np.flatnonzero((found != expected.view(code)) & ~nan)
    assert wrong.size == 0, f"{x[wrong[0]]!r}: {found[wrong[0]]:#x} instead of {expected.view(code)[wrong[0]]:#x}"


def test_tf32_rounds_and_truncates_at_ten_bits() -> None:
    x = wide(2)
    x = x[np.isfinite(x)]
    grid = np.ldexp(1.0, np.maximum(np.frexp(np.abs(x))[1] - 1, -126) - 10)
    exact = x.astype(np.float64) / grid
    cut = (np.trunc(exact) * grid).astype(np.float32)
    assert np.array_equal(_core.truncate_to_tf32(x).view(np.uint32), np.copysign(cut, x).view(np.uint32))
    with np.errstate(over="ignore"):
        near = (np.rint(exact) * grid).astype(np.float32)
    assert np.array_equal(_core.round_to_tf32(x).view(np.uint32), np.copysign(near, x).view(np.uint32))
    odd = np.uint32([0x7F800001, 0xFF800001, 0x7F800000]).view(np.float32)
    assert np.array_equal(np.isnan(_core.round_to_tf32(odd)), [True, True, False])
