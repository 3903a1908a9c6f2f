"""fused_dot_add on a GPU against the CPU's: every unit of every profile, every byte."""

import numpy as np
import pytest

from qforensics.devices import MatrixUnit, devices
from qforensics.numerics import fused_dot_add
from unit_data import FAMILIES, cases

ROWS = 8_000
# one device per architecture: they share its units
PROFILES = {profile.architecture: profile for profile in devices()}.values()
UNITS = sorted({(p.architecture, u.path, u.dtype, u.out) for p in PROFILES for u in p.units if u.dtype != "int8"})
INT8 = sorted({(p.architecture, u.path) for p in PROFILES for u in p.units if u.dtype == "int8"})


def both(*rows: np.ndarray, **call: object) -> np.ndarray:
    """The GPU's results, which are the CPU's."""
    found = fused_dot_add(*rows, executor="cuda", **call)
    wanted = fused_dot_add(*rows, **call)
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    wrong = np.flatnonzero(found.view(np.uint32) != wanted.view(np.uint32))
    assert wrong.size == 0, f"{wrong.size} of {found.size} differ, first: row {wrong[0]}"
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("unit", UNITS, ids="-".join)
def test_every_unit(unit: tuple[str, str, str, str], family: str) -> None:
    architecture, path, dtype, out = unit
    for length in (96, 40):  # chains of whole steps, and a last step padded with zeros
        rows = cases(architecture, dtype, out, family, ROWS, length)
        found = both(*rows, unit=f"{architecture}:{path}", dtype=dtype, out=out)
        if family == "special":
            assert np.isnan(found).any()


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "tf32", "e4m3", "e5m2"])
def test_named_numbers(dtype: str) -> None:
    rows = cases("any", dtype, "fp32", "normal", ROWS, 50)
    found = [both(*rows, unit=MatrixUnit(products=11, fraction_bits=f), dtype=dtype) for f in (21, 22)]
    assert (found[0] != found[1]).any()


@pytest.mark.parametrize(("dtype", "other"), [("tf32", "a100"), ("e4m3", "h200:wgmma"), ("e5m2", "l40s")])
def test_another_unit_shows(dtype: str, other: str) -> None:
    """Negative control."""
    rows = cases("h200", dtype, "fp32", "normal", ROWS, 96)
    right = both(*rows, unit="h200", dtype=dtype)
    assert (right.view(np.uint32) != both(*rows, unit=other, dtype=dtype).view(np.uint32)).any()


@pytest.mark.parametrize("unit", INT8, ids="-".join)
def test_int8(unit: tuple[str, str]) -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.integers(-128, 128, (ROWS, 96)).astype(np.float32) for _ in range(2))
    c = rng.integers(-(2**31), 2**31, ROWS, dtype=np.int64).astype(np.int32)
    c[::7], c[::11] = 2**31 - 1, -(2**31)  # their sums wrap
    found = both(a, b, c, unit=":".join(unit), dtype="int8", out="int32")
    exact = (a.astype(np.int64) * b.astype(np.int64)).sum(1) + c
    assert (found == exact.astype(np.int32)).all()
    assert (found != exact).any()


def test_no_rows() -> None:
    empty = np.zeros((0, 16), np.float32)
    assert both(empty, empty, np.zeros(0, np.float32), unit="a100", dtype="fp16").shape == (0,)


def test_unknown_executor() -> None:
    one = np.ones(16, np.float32)
    with pytest.raises(ValueError, match="unknown executor 'gpu'; one of: cpu, cuda"):
        fused_dot_add(one, one, np.float32(0), unit="a100", dtype="fp16", executor="gpu")
