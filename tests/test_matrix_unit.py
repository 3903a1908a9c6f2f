"""fused_dot_add against an independent exact reference, on data that reaches every rule, and against wrong units."""

import numpy as np
import pytest

from matrix_unit_reference import UNITS, dot_add, fp8_by_fp16
from qforensics.devices import MatrixUnit
from qforensics.numerics import fused_dot_add
from unit_data import FAMILIES, cases


def assert_same_bits(found: np.ndarray, expected: np.ndarray, what: str) -> None:
    assert found.dtype == np.float32
    bits, wanted = found.view(np.uint32), expected.astype(np.float32).view(np.uint32)
    wanted = np.where(np.isnan(expected), np.uint32(0x7FFFFFFF), wanted)
    wrong = np.flatnonzero(bits != wanted)
    if wrong.size:
        row = wrong[0]
        pytest.fail(f"{what}: {wrong.size} of {bits.size} differ, row {row}: {bits[row]:#x}, expected {wanted[row]:#x}")


@pytest.mark.parametrize(
    ("spoken", "name"),
    [("RTX 1000", "l40s"), ("Ada", "l40s"), ("NVIDIA A2", "a100"), ("hopper:wgmma", "h200:wgmma"), ("volta", "v100")],
)
def test_units_by_other_names(spoken: str, name: str) -> None:
    a, b, c = cases(name, "fp16", "fp32", "wide", 200, 32)
    found = fused_dot_add(a, b, c, unit=spoken, dtype="fp16")
    assert found.tobytes() == fused_dot_add(a, b, c, unit=name, dtype="fp16").tobytes()
    other = "h200" if name != "h200:wgmma" else "a100"  # negative control
    assert found.tobytes() != fused_dot_add(a, b, c, unit=other, dtype="fp16").tobytes()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("name", "dtype", "out"), UNITS, ids="-".join)
def test_equals_the_exact_reference(name: str, dtype: str, out: str, family: str) -> None:
    numbers = UNITS[name, dtype, out]
    for length in (3 * numbers[0], numbers[0] // 2):  # a chain of steps, and a step padded with zeros
        a, b, c = cases(name, dtype, out, family, 60, length)
        found = fused_dot_add(a, b, c, unit=name, dtype=dtype, out=out)
        rows = zip(a.tolist(), b.tolist(), c.tolist(), strict=True)
        expected = np.array([dot_add(x, y, z, dtype, out, numbers) for x, y, z in rows])
        assert_same_bits(found, expected, f"{name} {dtype} -> {out}, {family}, K = {length}")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("out", ["fp32", "fp16"])
@pytest.mark.parametrize("dtype", ["e4m3", "e5m2"])
@pytest.mark.parametrize("name", ["h100", "h200", "b200"])
def test_fp8_through_fp16(name: str, dtype: str, out: str, family: str) -> None:
    a, b, c = cases(name, dtype, out, family, 60, 96)
    found = fused_dot_add(a, b, c, unit=name, dtype=dtype, out=out)
    rows = zip(a.tolist(), b.tolist(), c.tolist(), strict=True)
    expected = np.array([fp8_by_fp16(x, y, z, out) for x, y, z in rows])
    assert_same_bits(found, expected, f"{name} {dtype} -> {out}, {family}")


def test_fp8_groups_are_pairs_of_four() -> None:
    """Any other grouping of the 32 products gives other bits: here contiguous halves."""
    a, b, c = cases("h200", "e5m2", "fp32", "wide", 400, 32)
    contiguous = np.concatenate([np.flatnonzero(np.arange(32) % 4 < 2), np.flatnonzero(np.arange(32) % 4 >= 2)])
    order = np.argsort(contiguous)
    right = fused_dot_add(a, b, c, unit="h200", dtype="e5m2")
    assert np.count_nonzero(right != fused_dot_add(a[:, order], b[:, order], c, unit="h200", dtype="e5m2")) > 20


@pytest.mark.parametrize("change", [{"products": 8}, {"products": 4}, {"fraction_bits": 24}, {"fraction_bits": 26}])
def test_wrong_numbers_change_bits(change: dict[str, int]) -> None:
    rng = np.random.default_rng(5)
    a, b = (rng.normal(size=(2000, 64)).astype(np.float16).astype(np.float32) for _ in range(2))
    c = np.zeros(2000, np.float32)
    numbers = {"products": 16, "fraction_bits": 25}
    right = fused_dot_add(a, b, c, unit="h200", dtype="fp16")
    assert np.array_equal(right, fused_dot_add(a, b, c, unit=MatrixUnit(**numbers), dtype="fp16"))
    wrong = fused_dot_add(a, b, c, unit=MatrixUnit(**{**numbers, **change}), dtype="fp16")
    assert np.count_nonzero(right != wrong) > 100


def test_a_tiny_product_is_cut_and_one_on_the_grid_stays() -> None:
    """1 - 1 + 2^-t: what is left says how many fraction bits the unit keeps (probe P2 of the facts)."""
    for name, dtype, bits in (("v100", "fp16", 23), ("a100", "bf16", 24), ("h200", "bf16", 25), ("b200", "tf32", 25)):
        for t in (bits, bits + 1):
            a = np.float32([[1, -1, 2.0**-13, 0]])
            b = np.float32([[1, 1, 2.0 ** (13 - t), 0]])
            found = fused_dot_add(a, b, np.zeros(1, np.float32), unit=name, dtype=dtype)
            assert found[0] == (2.0**-t if t == bits else 0.0), (name, t)


def test_fp16_results_round_once() -> None:
    """1 + 2^-11 is a tie in fp16: any bit that the unit kept below it, however low, must break the tie upward."""
    for name, bits in (("v100", 23), ("a100", 24), ("h200", 25)):
        for t in (bits, bits + 1):
            a, b = np.float32([[1, 2.0**-5, 2.0**-13]]), np.float32([[1, 2.0**-6, 2.0 ** (13 - t)]])
            found = fused_dot_add(a, b, np.zeros(1, np.float32), unit=name, dtype="fp16", out="fp16")
            assert found[0] == (1 + 2.0**-10 if t == bits else 1.0), (name, t)


@pytest.mark.parametrize("name", ["v100", "a100", "l40s", "h200", "b200"])
def test_zero_terms_hold_the_grid_up(name: str) -> None:
    """With c = 0 the grid cannot sink below 2^(exponent of zero terms - F): a term on it counts, one below is cut."""
    zero = np.zeros(1, np.float32)
    if name != "v100":
        _, bits, _, floor = UNITS[name, "bf16", "fp32"]
        for t, expected in ((floor - bits, 0.0), (floor - bits - 1, 2.0**-149)):  # 2^-149 less a little, toward zero
            a, b = np.float32([[2.0**-75, -(2.0**-78)]]), np.float32([[2.0**-74, 2.0 ** (t + 78)]])
            assert fused_dot_add(a, b, zero, unit=name, dtype="bf16")[0] == expected, t
    _, bits, _, floor = UNITS[name, "fp16", "fp16"]
    for t, expected in ((floor - bits, 2.0**-24), (floor - bits - 1, 0.0)):  # a tie in fp16 plus a little
        a, b = np.float32([[2.0**-12, 2.0**-24]]), np.float32([[2.0**-13, 2.0 ** (t + 24)]])
        assert fused_dot_add(a, b, zero, unit=name, dtype="fp16", out="fp16")[0] == expected, t


def test_tf32_operands_lose_their_low_bits() -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.normal(size=(200, 16)).astype(np.float32) for _ in range(2))
    c = rng.normal(size=200).astype(np.float32)
    cut = [(x.view(np.uint32) & 0xFFFFE000).view(np.float32) for x in (a, b)]
    found = fused_dot_add(a, b, c, unit="a100", dtype="tf32")
    assert np.array_equal(found, fused_dot_add(*cut, c, unit="a100", dtype="tf32"))


def test_int8_is_exact_and_wraps() -> None:
    rng = np.random.default_rng(4)
    a, b = (rng.integers(-128, 128, (50, 300)).astype(np.float32) for _ in range(2))
    c = rng.integers(-(2**31), 2**31, 50).astype(np.int32)
    exact = (a.astype(np.int64) * b.astype(np.int64)).sum(1) + c
    found = fused_dot_add(a, b, c, unit="a100", dtype="int8", out="int32")
    assert found.dtype == np.int32
    assert np.array_equal(found, exact.astype(np.int32))
    start = np.zeros(50, np.float32)
    small = fused_dot_add(a, b, start, unit="l4", dtype="int8")
    assert small.dtype == np.float32
    assert np.array_equal(small, (exact - c).astype(np.float32))
    with pytest.raises(ValueError, match="ask for out='int32'"):
        fused_dot_add(a, b, (c | 1).astype(np.int32), unit="a100", dtype="int8")


def test_shapes() -> None:
    a = np.ones((2, 3, 16), np.float32)
    assert fused_dot_add(a, a, np.zeros((2, 3), np.float32), unit="h200", dtype="fp16").shape == (2, 3)
    assert fused_dot_add(a[0, 0], a[0, 0], np.float32(1), unit="h200", dtype="fp16").shape == ()
    assert fused_dot_add(a[:0], a[:0], np.zeros((0, 3), np.float32), unit="h200", dtype="fp16").shape == (0, 3)
    strided = np.ones((16, 4), np.float32).T
    assert np.array_equal(fused_dot_add(strided, strided, np.zeros(4, np.float32), unit="h200", dtype="fp16"), [16] * 4)


def test_refusals() -> None:
    a, c = np.ones((2, 16), np.float32), np.zeros(2, np.float32)
    odd = a.copy()
    odd[1, 3] = 0.1
    right = {"unit": "h200", "dtype": "fp16"}
    with pytest.raises(ValueError, match=r"b\[1, 3\]: .*0\.1.* is no fp16 value"):
        fused_dot_add(a, odd, c, **right)
    with pytest.raises(ValueError, match=r"c\[0\]: .* is no fp16 value"):
        fused_dot_add(a, a, c + np.float32(0.1), **right, out="fp16")
    with pytest.raises(ValueError, match="is no e4m3 value"):
        fused_dot_add(a * np.float32(np.inf), a, c, unit="l4", dtype="e4m3")
    with pytest.raises(TypeError, match="a: expected a float32 array, found float64"):
        fused_dot_add(a.astype(np.float64), a, c, **right)
    with pytest.raises(TypeError, match="c: expected a float32 array, found list"):
        fused_dot_add(a, a, [0.0, 0.0], **right)
    with pytest.raises(ValueError, match=r"equal shapes \[..., K\], found \[2, 16\] and \[1, 16\]"):
        fused_dot_add(a, a[:1], c, **right)
    with pytest.raises(ValueError, match=r"c: expected shape \[2\], found \[1\]"):
        fused_dot_add(a, a, c[:1], **right)
    with pytest.raises(ValueError, match="unknown dtype 'fp8'; one of: fp16"):
        fused_dot_add(a, a, c, unit="h200", dtype="fp8")
    with pytest.raises(ValueError, match="unknown out 'bf16'"):
        fused_dot_add(a, a, c, **right, out="bf16")
    with pytest.raises(ValueError, match="a100-sxm4-80gb has no matrix unit 'mma' from e4m3 to fp32"):
        fused_dot_add(a, a, c, unit="a100", dtype="e4m3")
    with pytest.raises(ValueError, match="no matrix unit 'tcgen05'"):
        fused_dot_add(a, a, c, unit="h200:tcgen05", dtype="fp16")
    with pytest.raises(ValueError, match=r"products: expected 1 \.\. 64, found 0"):
        fused_dot_add(a, a, c, unit=MatrixUnit(products=0, fraction_bits=24), dtype="fp16")
    with pytest.raises(ValueError, match="does not give out='fp16'"):
        fused_dot_add(a, a, c, unit=MatrixUnit(products=8, fraction_bits=24), dtype="fp16", out="fp16")
    with pytest.raises(TypeError, match="found int"):
        fused_dot_add(a, a, c, unit=7, dtype="fp16")  # type: ignore[arg-type]
