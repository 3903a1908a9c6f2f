"""bf16 numbers computed through fp16's range (csrc/kernels/emulate/half_window.h) give the bits of the plain way."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from qforensics import _core
from qforensics.plans import make_plan

BF16 = ml_dtypes.bfloat16
ORDER = ["portable", "avx2", "avx512"]
ISAS = ORDER[: ORDER.index(_core.best_isa()) + 1]
M, K, N, GROUP = 67, 192, 80, 32


def spread(rng: np.random.Generator, shape: tuple[int, int], lowest: int, highest: int) -> np.ndarray:
    """Numbers with exponents lowest .. highest; those of the first rows are all the lowest: there a wrong exponent is
    the largest of its step, and shows."""
    exponents = rng.integers(lowest, highest + 1, shape)
    exponents[: shape[0] // 2] = lowest
    exponents[-1, -1] = highest
    significand = 1 + rng.integers(0, 128, shape) / 128
    return (rng.choice([-1, 1], shape) * np.ldexp(significand, exponents)).astype(BF16)


#: exponents of the activations: fp16's normal range holds 29 of them, moved by at most 30
ROWS = {
    "usual": (-20, 3),
    "just fits": (-25, 3),
    "one too many": (-26, 3),
    "wide": (-90, 60),
    "small": (-40, -16),
    "too small": (-60, -40),
    "large": (20, 40),
    "too large": (45, 60),
}
SCALES = {
    "usual": (-9, -6),
    "just fits": (-26, -7),
    "one too many": (-27, -7),
    "one binade": (-8, -8),
    "wide": (-40, 10),
    "too small": (-70, -66),
    "large": (30, 33),
}


def rows_of(name: str) -> np.ndarray:
    x = spread(np.random.default_rng(len(name)), (M, K), *ROWS[name])
    x[3] = 0
    x[5, ::7] = -0.0
    return x


def leaves(plan: Any, weight: Any, x: np.ndarray, isa: str, window: str) -> np.ndarray:
    """The sums before the output's rounding, which would hide most wrong bits: [leaf, M, N] float32."""
    runner = _core.KernelRunner(isa, 1)
    return np.asarray(_core.emulate_leaves(plan._core_plan, weight, x.view(np.uint16), runner, window))


def assert_same_bits(kernel: str, group: int, device: str, options: Any, weight: Any, x: np.ndarray) -> None:
    """With the window, by every instruction set, against the plain way of the portable one."""
    plan = make_plan(kernel, (M, weight.n, K), group, device, "bf16", options)
    plain = leaves(plan, weight, x, "portable", "never")
    for isa in ISAS:
        found = leaves(plan, weight, x, isa, "always")
        wrong = found.view(np.uint32) != plain.view(np.uint32)
        assert not (wrong & ~(np.isnan(found) & np.isnan(plain))).any(), (isa, int(wrong.sum()))


@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("offsets", ["none", "usual", "small", "cancelling"])
def test_codes(rows: str, scales: str, offsets: str) -> None:
    rng = np.random.default_rng(5)
    codes = rng.integers(0, 16, (K, N), dtype=np.uint8)
    zeros = np.full((K // GROUP, N), 8, np.uint8)
    s = spread(rng, zeros.shape, *SCALES[scales])
    o = {
        "none": None,
        "usual": (s.astype(np.float32) * rng.uniform(-8, 8, s.shape)).astype(BF16).astype(np.float32),
        "small": (s.astype(np.float32) * np.ldexp(1.0, rng.integers(-20, 1, s.shape))).astype(BF16).astype(np.float32),
        "cancelling": (s.astype(np.float32) * rng.integers(-8, 9, s.shape)).astype(BF16).astype(np.float32),
    }[offsets]
    weight = _core.pack_codes(codes, zeros, s.view(np.uint16), "bf16", GROUP, o, None)
    assert_same_bits("tinygemm", GROUP, "h200", _core.KernelOptions(), weight, rows_of(rows))


@pytest.mark.parametrize("rows", ["usual", "wide"])
@pytest.mark.parametrize(("kernel", "device"), [("marlin", "a100"), ("marlin", "h200"), ("machete", "h200")])
@pytest.mark.parametrize("group", [64, -1])
def test_other_kernels(group: int, kernel: str, device: str, rows: str) -> None:
    rng = np.random.default_rng(6)
    codes = rng.integers(0, 16, (K, 128), dtype=np.uint8)
    zeros = rng.integers(0, 16, (1 if group == -1 else K // group, 128), dtype=np.uint8)
    scales = spread(rng, zeros.shape, -9, -6)
    weight = _core.pack_codes(codes, zeros, scales.view(np.uint16), "bf16", group, None, None)
    assert_same_bits(kernel, group, device, _core.KernelOptions(), weight, rows_of(rows))


@pytest.mark.parametrize("special", [None, np.inf, np.nan, 1e-40])
@pytest.mark.parametrize("lowest", [-25, -26, -60])
@pytest.mark.parametrize("rows", ["usual", "just fits", "one too many", "wide"])
def test_numbers(rows: str, lowest: int, special: float | None) -> None:
    numbers = spread(np.random.default_rng(7), (N, K), lowest, 3)
    if special is not None:
        numbers[N // 2, K // 3] = special
    options = _core.KernelOptions()
    options.dense = options.transposed = True
    assert_same_bits("cublas", -1, "h200", options, _core.pack_dense(numbers.view(np.uint16), "bf16"), rows_of(rows))


@pytest.mark.parametrize("rows", ["usual", "just fits", "wide"])
def test_another_unit_shows(rows: str) -> None:
    """Negative control: the numbers are such that one bit of the unit's fraction, or the length of its step, shows."""
    options = _core.KernelOptions()
    options.dense = options.transposed = True
    weight = _core.pack_dense(spread(np.random.default_rng(7), (N, K), -25, 3).view(np.uint16), "bf16")
    h200, a100 = (make_plan("cublas", (M, N, K), -1, device, "bf16", options) for device in ("h200", "a100"))
    plain = leaves(h200, weight, rows_of(rows), "portable", "never")
    other = leaves(a100, weight, rows_of(rows), ISAS[-1], "always")
    assert (plain.view(np.uint32) != other.view(np.uint32)).sum() > 100


def test_unknown_window_is_refused() -> None:
    options = _core.KernelOptions()
    options.dense = options.transposed = True
    numbers = spread(np.random.default_rng(9), (N, K), -3, 3)
    plan = make_plan("cublas", (1, N, K), -1, "h200", "bf16", options)
    with pytest.raises(Exception, match="half_window: expected where_cheap, always or never, found some"):
        leaves(plan, _core.pack_dense(numbers.view(np.uint16), "bf16"), numbers[:1], ISAS[-1], "some")
