"""NaN, Inf, signed zeros and overflow: conversions and matrix units against what an H200 gave (``specials.txt``, made
by ``tests/gpu/specials.cu``), and whole kernels against what the products say."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from qforensics import _core, kernels
from qforensics.devices import device
from qforensics.numerics import fused_dot_add
from test_kernels_arithmetic import CALLS, ISAS, weights

FILE = Path(__file__).parent / "data" / "vectors" / "specials.txt"
NAN16, NAN32 = 0x7FFF, 0x7FFFFFFF


def recorded(*operations: str) -> list[tuple[int, int, int, int]]:
    """(a, b, c, result) of every recorded case of the operations."""
    lines = [line.split() for line in FILE.read_text().splitlines()]
    cases = [tuple(int(word, 16) for word in line[1:]) for line in lines if line[0] in operations]
    assert len(cases) > 2, operations
    return cases  # type: ignore[return-value]


def encode(name: str, bits: list[int]) -> list[int]:
    return getattr(_core, f"encode_{name}")(np.array(bits, np.uint32).view(np.float32)).tolist()


def decode(name: str, codes: list[int]) -> list[int]:
    dtype = np.uint8 if name.startswith("e") else np.uint16
    return getattr(_core, f"decode_{name}")(np.array(codes, dtype)).view(np.uint32).tolist()


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_narrowing(name: str) -> None:
    short = name.replace("fp", "f")
    cases = recorded(f"cvt_{short}_f32")
    assert encode(name, [a for a, _, _, _ in cases]) == [result for *_, result in cases]
    for a, b, _, result in recorded(f"cvt_{short}x2_f32"):
        assert encode(name, [a, b]) == [result >> 16, result & 0xFFFF]
    # the recording does hold NaNs of both signs, and payloads that a plain shift would keep
    assert [result for *_, result in cases].count(NAN16) >= 6


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_widening(name: str) -> None:
    cases = recorded(f"cvt_f32_{name.replace('fp', 'f')}")
    assert decode(name, [a for a, _, _, _ in cases]) == [result for *_, result in cases]
    payloads = {result for *_, result in cases if result & 0x7FFFFFFF > 0x7F800000}
    assert (payloads == {NAN32}) == (name == "fp16")


@pytest.mark.parametrize("name", ["e4m3", "e5m2"])
def test_eight_bits(name: str) -> None:
    """NaN only: what the recorded instructions do beyond the largest number is another mode than ours."""
    nans = [(a, result) for a, _, _, result in recorded(f"cvt_{name}_f32") if a & 0x7FFFFFFF > 0x7F800000]
    assert encode(name, [a for a, _ in nans]) == [result & 0xFF for _, result in nans] == [0x7F] * 6
    for a, _, _, result in recorded(f"cvt_f16x2_{name}"):
        assert encode("fp16", np.array(decode(name, [a >> 8, a & 0xFF])).tolist()) == [result >> 16, result & 0xFFFF]


def operands(case: tuple[int, int, int, int], operation: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """a, b [16] and c: one pair of products and zeros, or (``_all``) the pair eight times."""
    narrow = ml_dtypes.bfloat16 if "bf16" in operation else np.float16
    pairs = [np.array([word & 0xFFFF, word >> 16], np.uint16).view(narrow).astype(np.float32) for word in case[:2]]
    a, b = (np.tile(p, 8) if operation.endswith("_all") else np.pad(p, (0, 14)) for p in pairs)
    if "f16_f16" in operation:
        return a, b, np.array(case[2] & 0xFFFF, np.uint16).view(np.float16).astype(np.float32)
    return a, b, np.array(case[2], np.uint32).view(np.float32)


MATRIX = [f"mma_{name}{scope}" for name in ("f16_f32", "bf16_f32", "f16_f16") for scope in ("", "_all")]


@pytest.mark.parametrize("operation", MATRIX)
def test_matrix_units(operation: str) -> None:
    half_out, dtype = "f16_f16" in operation, "bf16" if "bf16" in operation else "fp16"
    unit = device("h200").unit(dtype, out="fp16" if half_out else "fp32").unit
    numbers = {"products": unit.products, "fraction_bits": unit.fraction_bits, "zero_exponent": unit.zero_exponent}
    numbers |= {"half_out": half_out, "fresh": False, "repeat": 1, "input_exponent": -126 if dtype == "bf16" else -14}
    for case in recorded(operation):
        a, b, c = operands(case, operation)
        wanted = case[3] & 0xFFFF if half_out else case[3]
        oracle = fused_dot_add(a, b, c, unit="h200", dtype=dtype, out="fp16" if half_out else "fp32")
        rows, columns = a[None], np.repeat(b[:, None], 16, axis=1)
        start = np.full((1, 16), c)
        chains = [_core.dot_chain(rows, columns, start, isa=isa, **numbers) for isa in ("oracle", *ISAS)]
        for result in (oracle, *chains):
            bits = _core.encode_fp16(np.asarray(result)) if half_out else np.asarray(result).view(np.uint32)
            assert set(bits.ravel().tolist()) == {wanted}, (operation, [hex(word) for word in case])


def classes(a: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Outputs that must be NaN, and infinite, given the products."""
    nan, up, down = (np.zeros((len(a), w.shape[1]), bool) for _ in range(3))
    with np.errstate(invalid="ignore", over="ignore"):
        for row, values in enumerate(a.astype(np.float64)):
            product = values[:, None] * w
            nan[row] = np.isnan(product).any(axis=0)
            up[row], down[row] = np.isposinf(product).any(axis=0), np.isneginf(product).any(axis=0)
    nan |= up & down
    return nan, (up | down) & ~nan


def hurt(what: str, rng: np.random.Generator, a: np.ndarray, scales: np.ndarray) -> None:
    if what == "activations":
        for row in range(len(a)):
            a[row, rng.integers(a.shape[1])] = [np.nan, np.inf, -np.inf, -np.nan][row % 4]
            if row % 3 == 0:
                a[row, rng.integers(a.shape[1])] = -np.inf
    else:
        value = np.nan if what == "scales NaN" else np.inf
        scales[rng.integers(len(scales)), ::3] = value
        scales[rng.integers(len(scales)), 1::3] = -value


def scales_come_later(kernel: str, how: dict[str, Any]) -> bool:
    """Integers are summed first: which sums an infinite scale meets is then not a matter of products."""
    return kernel == "exllama" or how.get("group_size") == -1


HURT = [
    (*call, what)
    for call in CALLS
    for what in ("activations", "scales NaN", "scales Inf")
    if what != "scales Inf" or not scales_come_later(call[0], call[2])
]


@pytest.mark.parametrize(("kernel", "rows", "how", "what"), HURT, ids=lambda value: str(value).replace(" ", ""))
def test_kernels(kernel: str, rows: int, how: dict[str, Any], what: str) -> None:
    rng = np.random.default_rng(3)
    given = dict(how)
    group, dtype = given.pop("group_size", 64), given.pop("dtype", np.float16)
    codes, zeros, scales = weights(rng, 1024, 256, 1024 if group == -1 else group)
    a = rng.standard_normal((rows, 1024)).astype(dtype)
    hurt(what, rng, a, scales)
    name = "fp32" if dtype is np.float32 else "bf16" if dtype is ml_dtypes.bfloat16 else "fp16"
    w = kernels.dequantize(kernel, codes, zeros, scales, group_size=group, dtype=name).astype(np.float64)
    if scales_come_later(kernel, how):
        w *= np.repeat(scales.astype(np.float64), 1024 // len(scales), axis=0)
    nan, infinite = classes(a, w)
    assert nan.any()
    outputs = [
        kernels.emulate(kernel, a, codes, zeros, scales, group_size=group, device="h200", isa=isa, threads=1, **given)
        for isa in ISAS
    ]
    for found in outputs:
        values = found.astype(np.float32)
        assert (np.isnan(values) == nan).all()
        assert (np.isinf(values) == infinite).all()
        bits = found.view(np.uint32 if found.itemsize == 4 else np.uint16)
        assert (bits[nan] == (NAN32 if found.itemsize == 4 else NAN16)).all()
        assert found.tobytes() == outputs[0].tobytes()
