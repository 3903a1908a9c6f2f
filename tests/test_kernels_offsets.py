"""Stored float offsets, (code - zero) * scale + offset: rounded once, and alike on every instruction set."""

import zlib
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from qforensics import _core
from qforensics.plans import make_plan

ORDER = ["portable", "avx2", "avx512"]
ISAS = ORDER[: ORDER.index(_core.best_isa()) + 1]
GROUP, GROUPS, N = 32, 12, 64
K = GROUP * GROUPS


def normal(rng: np.random.Generator, low: int, high: int) -> np.ndarray:
    """Normal numbers times 2^low .. 2^high, float32."""
    with np.errstate(under="ignore"):
        return np.ldexp(rng.standard_normal((GROUPS, N)), rng.integers(low, high + 1, (GROUPS, N))).astype(np.float32)


def family(name: str, rng: np.random.Generator, scale_dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Scales in their dtype and offsets float32, both [GROUPS, N]."""
    plain, shape = normal(rng, -7, -5).astype(scale_dtype), (GROUPS, N)
    if name == "plain":
        return plain, normal(rng, -5, 0)
    if name == "wide":
        return normal(rng, -126, 90).astype(scale_dtype), normal(rng, -140, 90)
    if name == "cancelling":  # to zero, or to a unit of the offset, for one code of the group
        exact = -(rng.integers(-15, 16, shape) * plain.astype(np.float32)).astype(np.float32)
        toward = rng.choice(np.array([-1, 0, 1], np.float32), shape)
        return plain, np.nextafter(exact, exact + toward, dtype=np.float32)
    if name == "ties":  # offsets halfway between two bf16 numbers, products far below a unit of fp32
        middle = np.ldexp((rng.integers(128, 256, shape) * 2 + 1).astype(np.float32), rng.integers(-12, 0, shape))
        return normal(rng, -40, -32).astype(scale_dtype), (middle * rng.choice([-1, 1], shape)).astype(np.float32)
    if name == "gaps":  # bf16 offsets 2^-30 .. 2^30 times their scale: exact sums and inexact ones
        powers = np.repeat(rng.integers(-30, 31, (GROUPS, N // 16)), 16, axis=1)
        steps = np.ldexp(1 + rng.integers(0, 128, shape) / 128, powers)
        return plain, (plain.astype(np.float32) * steps).astype(ml_dtypes.bfloat16).astype(np.float32)
    if name == "subnormal":
        scales = rng.integers(0, 128, shape, np.uint16) | rng.choice(np.array([0, 0x8000], np.uint16), shape)
        offsets = rng.integers(0, 1 << 23, shape, np.uint32) | rng.choice(np.array([0, 1 << 31], np.uint32), shape)
        return scales.view(scale_dtype), offsets.view(np.float32)
    if name == "zeros":
        signs = [rng.choice(np.array([0.0, -0.0, 1.0, -1.0], np.float32), shape) for _ in range(2)]
        return signs[0].astype(scale_dtype), signs[1]
    if name == "bound":  # on both sides of 2^100, beyond which the vector loops hand over
        return normal(rng, 98, 101).astype(scale_dtype), normal(rng, 98, 101)
    if name == "overflow":
        return normal(rng, 122, 127).astype(scale_dtype), normal(rng, 125, 127)
    if name == "special":
        scales = rng.integers(0, 1 << 16, shape, np.uint16)
        offsets = rng.integers(0, 1 << 32, shape, np.uint32)
        scales[rng.random(shape) < 0.1] = 0x7F80 if scale_dtype is ml_dtypes.bfloat16 else 0x7C00
        offsets[rng.random(shape) < 0.1] = 0xFF800000
        offsets[rng.random(shape) < 0.1] = 0x7FC12345
        return scales.view(scale_dtype), offsets.view(np.float32)
    raise AssertionError(name)


def draw(name: str, scale_dtype: Any) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    codes = rng.integers(0, 16, (K, N), dtype=np.uint8)
    zeros = np.where(rng.random((GROUPS, N)) < 0.7, 8, rng.integers(0, 16, (GROUPS, N))).astype(np.uint8)
    with np.errstate(over="ignore", under="ignore"):
        return codes, zeros, *family(name, rng, scale_dtype)


def pack(codes: np.ndarray, zeros: np.ndarray, scales: np.ndarray, offsets: np.ndarray) -> Any:
    name = "bf16" if scales.dtype == ml_dtypes.bfloat16 else "fp16"
    return _core.pack_codes(codes, zeros, scales.view(np.uint16), name, GROUP, offsets, None)


def dequantize(kernel: str, dtype: str, isa: str, weight: Any) -> np.ndarray:
    options = _core.KernelOptions()
    options.offsets = kernel == "fp32"
    plan = make_plan(kernel, (1, N, K), GROUP, "h200", dtype, options)
    return np.asarray(_core.dequantize_weight(plan._core_plan, weight, _core.KernelRunner(isa, 1)))


def parts(codes: np.ndarray, zeros: np.ndarray, scales: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, ...]:
    """(code - zero), scale and offset of every weight, float64."""
    rows = [np.repeat(a, GROUP, axis=0).astype(np.float64) for a in (zeros, scales, offsets)]
    return codes - rows[0], rows[1], rows[2]


def bf16_once(exact: Fraction) -> float:
    """The nearest bf16 number, ties to even."""
    if exact == 0:
        return 0.0
    exponent = abs(exact.numerator).bit_length() - exact.denominator.bit_length()
    exponent -= abs(exact) < Fraction(2) ** exponent
    unit = Fraction(2) ** (max(exponent, -126) - 7)
    return float(round(exact / unit) * unit)


FAMILIES = ["plain", "wide", "cancelling", "ties", "gaps", "subnormal", "zeros", "bound", "overflow", "special"]


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    ("kernel", "dtype", "scale_dtype"),
    [("tinygemm", "bf16", ml_dtypes.bfloat16), ("fp32", "fp32", ml_dtypes.bfloat16), ("fp32", "fp32", np.float16)],
)
def test_every_instruction_set_gives_the_same_bytes(kernel: str, dtype: str, scale_dtype: Any, name: str) -> None:
    weight = pack(*draw(name, scale_dtype))
    reference = dequantize(kernel, dtype, "portable", weight)
    for isa in ISAS:
        assert dequantize(kernel, dtype, isa, weight).tobytes() == reference.tobytes(), isa


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("columns", [16, 48, 64])  # panels that share the cells of their exponents, and others
def test_every_instruction_set_gives_the_same_products(columns: int, name: str) -> None:
    given = [np.ascontiguousarray(part[:, :columns]) for part in draw(name, ml_dtypes.bfloat16)]
    weight, plan = pack(*given), make_plan("tinygemm", (3, columns, K), GROUP, "a100", "bf16", _core.KernelOptions())
    rows = np.random.default_rng(7).standard_normal((3, K)).astype(ml_dtypes.bfloat16).view(np.uint16)

    def outputs(isa: str) -> bytes:
        runner = _core.KernelRunner(isa, 1)
        return np.asarray(_core.emulate_gemm(plan._core_plan, weight, rows, None, runner, 0, True)).tobytes()

    reference = outputs("portable")
    for isa in ISAS[1:]:
        assert outputs(isa) == reference, isa


@pytest.mark.parametrize("name", ["plain", "wide", "cancelling", "ties", "gaps", "subnormal", "zeros", "bound"])
def test_one_rounding_of_the_exact_sum(name: str) -> None:
    given = draw(name, ml_dtypes.bfloat16)
    found = dequantize("tinygemm", "bf16", ISAS[-1], pack(*given)).astype(np.float64)
    d, s, o = parts(*given)
    for at in np.ndindex(K, N):
        expected = bf16_once(Fraction(float(d[at])) * Fraction(float(s[at])) + Fraction(float(o[at])))
        assert found[at] == expected, (at, d[at], s[at], o[at])


def test_rounding_to_fp32_on_the_way_is_noticed() -> None:
    """The negative control: round(round(sum)) differs, so that equality above says something."""
    given = draw("ties", ml_dtypes.bfloat16)
    d, s, o = parts(*given)
    # the sum in float64 rounds to fp32 as the exact one does: what is lost there lies far below half a unit of fp32
    twice = (d * s + o).astype(np.float32).astype(ml_dtypes.bfloat16).astype(np.float32)
    once = dequantize("tinygemm", "bf16", ISAS[-1], pack(*given))
    assert (twice != once).mean() > 0.2


@pytest.mark.parametrize("name", ["plain", "wide", "zeros"])
def test_outputs_depend_on_no_instruction_set(name: str) -> None:
    """With the exponents that the matrix unit's emulation takes beside the weights."""
    weight = pack(*draw(name, ml_dtypes.bfloat16))
    a = np.random.default_rng(3).standard_normal((3, K)).astype(ml_dtypes.bfloat16).view(np.uint16)
    plan = make_plan("tinygemm", (3, N, K), GROUP, "h200", "bf16", _core.KernelOptions())
    found = [
        np.asarray(_core.emulate_gemm(plan._core_plan, weight, a, None, _core.KernelRunner(isa, 1), 0, True)).tobytes()
        for isa in ISAS
    ]
    assert found == [found[0]] * len(ISAS)
