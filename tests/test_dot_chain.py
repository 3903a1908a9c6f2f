"""The fast dot chains give the oracle's bits, on every instruction set, for every kind of data."""

import numpy as np
import pytest
from ml_dtypes import bfloat16

from qforensics import _core

UNITS = {  # products, fraction bits, fp16 out, zero exponent
    "volta": (4, 23, False, -131),
    "ampere": (8, 24, False, -132),
    "hopper": (16, 25, False, -133),
    "ampere-fp16": (8, 24, True, -20),
    "hopper-fp16": (16, 25, True, -21),
}
FAMILIES = ["normal", "wide", "cancelling", "subnormal", "constant", "bits", "zeros", "extreme"]


def instruction_sets() -> list[str]:
    order = ["portable", "avx2", "avx512"]
    return order[: order.index(_core.best_isa()) + 1]


def sample(rng: np.random.Generator, family: str, shape: tuple[int, int], dtype: type) -> np.ndarray:
    """Values of `dtype` as float32."""
    x = rng.standard_normal(shape)
    span = 120 if dtype is bfloat16 else 12
    if family == "wide":
        x = np.ldexp(x, rng.integers(-18, 7, shape))
    elif family == "cancelling":
        x[:, 1::2] = -x[:, 0::2]
        x = np.round(x * 4) / 4
    elif family == "subnormal":
        x = np.ldexp(x, rng.integers(-26, -13, shape) if dtype is np.float16 else rng.integers(-135, -124, shape))
    elif family == "constant":
        x = np.full(shape, 1.99)
    elif family == "bits":  # any pattern, Inf and NaN included
        return rng.integers(0, 1 << 16, shape, dtype=np.uint16).view(dtype).astype(np.float32)
    elif family == "zeros":
        x = np.where(rng.random(shape) < 0.8, 0.0, x)
        x[:, :32] = 0.0
    elif family == "extreme":
        x = np.ldexp(x, rng.integers(-span, span, shape))
    with np.errstate(over="ignore"):
        return x.astype(dtype).astype(np.float32)


def chain(rows, columns, c, unit, dtype, isa, fresh=False, repeat=1):
    products, fraction_bits, half_out, zero_exponent = unit
    return _core.dot_chain(
        rows,
        columns,
        c,
        products=products,
        fraction_bits=fraction_bits,
        half_out=half_out,
        zero_exponent=zero_exponent,
        input_exponent=-126 if dtype is bfloat16 else -14,
        fresh=fresh,
        isa=isa,
        repeat=repeat,
    )


@pytest.mark.parametrize(
    ("unit", "dtype"),
    # no matrix unit takes bf16 and gives fp16
    [(unit, dtype) for unit in UNITS for dtype in (np.float16, bfloat16) if dtype is np.float16 or not UNITS[unit][2]],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_same_bits_as_the_oracle(family, unit, dtype):
    rng = np.random.default_rng([FAMILIES.index(family), *unit.encode()])
    for row_count in (1, 2, 3, 4, 5, 7, 13):
        rows = sample(rng, family, (row_count, 96), dtype)
        columns = np.ascontiguousarray(sample(rng, family, (80, 96), dtype).T)
        starts = [np.zeros((row_count, 80), np.float32)]
        if not UNITS[unit][2]:
            starts.append(
                np.ldexp(rng.standard_normal((row_count, 80)), rng.integers(-140, 100, (row_count, 80))).astype(
                    np.float32
                )
            )
        for c in starts:
            for fresh in (False, True):
                want = chain(rows, columns, c, UNITS[unit], dtype, "oracle", fresh).view(np.uint32)
                for isa in instruction_sets():
                    got = chain(rows, columns, c, UNITS[unit], dtype, isa, fresh).view(np.uint32)
                    differ = np.argwhere(got != want)
                    # a NaN that an ordinary fp32 addition passes on keeps no defined payload
                    differ = [at for at in differ if not (fresh and np.isnan(want.view(np.float32)[tuple(at)]))]
                    assert not len(differ), (
                        isa,
                        row_count,
                        fresh,
                        differ[0],
                        hex(want[tuple(differ[0])]),
                        hex(got[tuple(differ[0])]),
                    )


@pytest.mark.parametrize(
    ("true", "wrong"),
    [
        ("hopper", (8, 25, False, -133)),
        ("hopper", (16, 24, False, -133)),
        ("ampere", (8, 23, False, -132)),
        ("ampere", (4, 24, False, -132)),
        ("hopper-fp16", (16, 22, True, -21)),
    ],
)
def test_a_wrong_unit_changes_bits(true, wrong):
    rng = np.random.default_rng(5)
    rows, columns = sample(rng, "normal", (8, 256), np.float16), sample(rng, "normal", (256, 64), np.float16)
    c = np.zeros((8, 64), np.float32)
    for isa in instruction_sets():
        right = chain(rows, columns, c, UNITS[true], np.float16, isa).view(np.uint32)
        other = chain(rows, columns, c, wrong, np.float16, isa).view(np.uint32)
        assert (right != other).sum() > 0


def test_an_unknown_instruction_set_is_refused():
    with pytest.raises(ValueError, match="unknown instruction set 'sse9'"):
        _core.check_isa("sse9")
