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
FAMILIES = ["normal", "wide", "cancelling", "subnormal", "constant", "bits", "zeros", "zero-columns", "extreme"]


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
    elif family == "zero-columns":  # rows and columns both: steps in which some lanes have no product
        x[rng.random(shape[0]) < 0.5] = 0.0
        x[:, 48:64] = 0.0
    elif family == "extreme":
        x = np.ldexp(x, rng.integers(-span, span, shape))
    with np.errstate(over="ignore"):
        return x.astype(dtype).astype(np.float32)


def accumulators(rng: np.random.Generator, shape: tuple[int, int], half: bool) -> np.ndarray:
    """Of every size that the output format has, zeros of both signs included; in the last row also Inf and NaN."""
    x = np.ldexp(rng.standard_normal(shape), rng.integers(-27, 16, shape) if half else rng.integers(-150, 120, shape))
    x[rng.random(shape) < 0.1] = 0.0
    x[rng.random(shape) < 0.1] = -0.0
    with np.errstate(over="ignore"):
        x = x.astype(np.float16 if half else np.float32).astype(np.float32)
    x[-1, 3], x[-1, 18], x[-1, 40] = np.inf, -np.inf, np.array(0x7FFFFFFF, np.uint32).view(np.float32)
    return x


def tame_accumulators(rng: np.random.Generator, shape: tuple[int, int], half: bool) -> np.ndarray:
    """Of the sizes that sums of products have; in the last column those around which "wild" ones begin."""
    x = np.ldexp(rng.standard_normal(shape), rng.integers(-16, 4, shape))
    x = x.astype(np.float16 if half else np.float32).astype(np.float32)
    if not half:
        x[:, -1] = np.ldexp(1.5, rng.integers(60, 68, shape[0]))
    return x


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
        half_out = UNITS[unit][2]
        starts = [
            np.zeros((row_count, 80), np.float32),
            accumulators(rng, (row_count, 80), half_out),
            tame_accumulators(rng, (row_count, 80), half_out),
        ]
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


@pytest.mark.parametrize("unit", ["ampere-fp16", "hopper-fp16"])
def test_a_subnormal_fp16_accumulator_has_the_exponent_of_the_smallest_normal_number(unit):
    """Products far below a subnormal accumulator: its exponent decides which of their bits break a tie."""
    rng = np.random.default_rng(11)
    significand, sign = lambda shape: 1 + rng.integers(0, 1024, shape) / 1024, [-1, 1, 0]
    taken_as_value = 0
    for _ in range(60):
        rows = np.ldexp(significand((64, 16)), rng.integers(-14, -6, (64, 16))) * rng.choice(sign, (64, 16))
        columns = np.ldexp(significand((16, 64)), rng.integers(-14, -6, (16, 64))) * rng.choice(sign[:2], (16, 64))
        rows, columns = rows.astype(np.float32), columns.astype(np.float32)
        c = (rng.integers(-40, 40, (64, 64)) * 2.0**-24).astype(np.float32)
        want = chain(rows, columns, c, UNITS[unit], np.float16, "oracle").view(np.uint32)
        for isa in instruction_sets():
            got = chain(rows, columns, c, UNITS[unit], np.float16, isa).view(np.uint32)
            np.testing.assert_array_equal(got, want, err_msg=isa)
        products, fraction_bits, half_out, zero_exponent = UNITS[unit]
        finer = (products, fraction_bits + (0 if fraction_bits == 25 else 1), half_out, zero_exponent)
        coarser = (products, fraction_bits - 1, half_out, zero_exponent)
        for wrong in (finer, coarser):  # negative control: such bits matter here
            taken_as_value += (chain(rows, columns, c, wrong, np.float16, "oracle").view(np.uint32) != want).sum()
    assert taken_as_value > 0


@pytest.mark.parametrize("unit", ["ampere-fp16", "hopper-fp16"])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("exponent", [0, 8, 14])
def test_bits_beyond_fp32_break_ties_of_fp16(exponent, sign, unit):
    """The sum is half-way between two fp16 numbers but for its last bit, which fp32's 24 bits have no room for."""
    fraction_bits = UNITS[unit][1]
    rows, columns = np.zeros((1, 16), np.float32), np.zeros((16, 64), np.float32)
    half_ulp, last_bit = 2.0 ** (exponent - 11), 2.0 ** (exponent - fraction_bits)
    rows[0, :3] = 2.0**-5, 2.0**-12, 2.0**-13
    columns[0], columns[1] = sign * half_ulp / 2.0**-5, sign * last_bit / 2.0**-12
    columns[1, 32:] = 0  # there it is a tie
    columns[2, :] = 2.0**-14  # below every bit of the sum
    c = np.full((1, 64), sign * 2.0**exponent, np.float32)
    assert (np.abs(columns[:2, :32]) >= 2.0**-24).all()
    for isa in ["oracle", *instruction_sets()]:
        got = chain(rows, columns, c, UNITS[unit], np.float16, isa)
        np.testing.assert_array_equal(got[0, :32], sign * 2.0**exponent * (1 + 2.0**-10), err_msg=isa)
        np.testing.assert_array_equal(got[0, 32:], sign * 2.0**exponent, err_msg=isa)


@pytest.mark.parametrize("unit", UNITS)
def test_steps_of_zeros_are_passed_over_only_where_all_products_are_zero(unit):
    """Zero rows against finite columns give back the accumulator (-0 becomes +0); Inf or a tiny number does not."""
    rng = np.random.default_rng([7, *unit.encode()])
    rows = np.zeros((3, 64), np.float32)
    columns = sample(rng, "normal", (64, 80), np.float16)
    c = accumulators(rng, (3, 80), UNITS[unit][2])
    finite = np.isfinite(c)
    for isa in instruction_sets():
        passed = chain(rows, columns, c, UNITS[unit], np.float16, isa)
        np.testing.assert_array_equal(passed[finite].view(np.uint32), (c + np.float32(0))[finite].view(np.uint32))
        for place, value in (((0, 17), np.inf), ((1, 33), np.float32(2.0**-24))):
            changed = rows.copy()
            changed[place] = value
            got = chain(changed, columns, c, UNITS[unit], np.float16, isa)
            want = chain(changed, columns, c, UNITS[unit], np.float16, "oracle")
            np.testing.assert_array_equal(got.view(np.uint32), want.view(np.uint32))
            assert (got.view(np.uint32) != passed.view(np.uint32)).any()
        special = columns.copy()
        special[5, 7] = np.nan  # 0 * NaN, in a lane of a step whose other products are zero
        got = chain(rows, special, c, UNITS[unit], np.float16, isa)
        assert np.isnan(got[:, 7]).all()
        np.testing.assert_array_equal(got[:, 8:].view(np.uint32), passed[:, 8:].view(np.uint32))


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
