"""Random GEMMs for the GPU tests, and the comparison of their outputs."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from qforensics import kernels

FAMILIES = ["normal", "wide", "cancelling", "subnormal", "zeros", "special"]


def activations_of(family: str, m: int, k: int, rng: np.random.Generator) -> np.ndarray:
    """float16 rows that leave the fast path in as many ways as there are."""
    x = rng.standard_normal((m, k))
    if family == "wide":
        x *= 2.0 ** rng.integers(-18, 12, (m, k))
    elif family == "cancelling":
        x[:, 1::2] = -x[:, ::2] * (1 + 2.0**-9 * rng.integers(-1, 2, x[:, ::2].shape))
    elif family == "subnormal":
        x *= 2.0**-16
    elif family == "zeros":
        x[rng.random((m, k)) < 0.7] = 0
        x[:, : k // 2] = 0
    elif family == "special":
        x[rng.random((m, k)) < 1 / k] = np.inf
        x[rng.random((m, k)) < 0.2 / k] = np.nan
    with np.errstate(over="ignore"):
        return x.astype(np.float16)


def as_bfloat16(family: str, x: np.ndarray) -> np.ndarray:
    """The rows of `activations_of` in bf16; wide ones use the room that it has."""
    wide = x.astype(np.float32)
    if family == "wide":
        wide *= 2.0 ** np.random.default_rng(5).integers(-90, 60, x.shape)
    return wide.astype(ml_dtypes.bfloat16)


def problem(family: str, m: int, n: int, k: int, group: int, seed: int) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    groups = 1 if group == -1 else k // group
    codes = rng.integers(0, 16, (k, n), dtype=np.uint8)
    zeros = rng.integers(6, 10, (groups, n), dtype=np.uint8)
    spread = 12 if family == "wide" else 2
    scales = (2.0 ** rng.uniform(-spread, 0, (groups, n)) * 0.02).astype(np.float16)
    return activations_of(family, m, k, rng), codes, zeros, scales


def assert_equal_bits(found: np.ndarray, wanted: np.ndarray) -> None:
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    bits = np.uint32 if found.dtype == np.float32 else np.uint16
    wrong = np.argwhere(found.view(bits) != wanted.view(bits))
    if len(wrong):
        at = tuple(wrong[0])
        pytest.fail(f"{len(wrong)} of {found.size} outputs differ, first at {at}: {found.view(bits)[at]:#x} "
                    f"instead of {wanted.view(bits)[at]:#x}")  # fmt: skip


def assert_native_equals_cpu(kernel: str, inputs: tuple[Any, ...], **call: Any) -> np.ndarray:
    """`kernels.emulate` natively and on the CPU; returns its outputs."""
    wanted = kernels.emulate(kernel, *inputs, **call)
    assert_equal_bits(kernels.emulate(kernel, *inputs, executor="native", **call), wanted)
    return wanted
