"""An independent matrix unit in exact rational arithmetic, written from the published description (T-FDPA), for tests.

No code and no numbers are shared with ``csrc/numerics``: terms are fractions, exponents come from ``frexp``.
"""

import math
from fractions import Fraction

NAN = float("nan")
MIN_EXPONENT = {"fp16": -14, "bf16": -126, "tf32": -126, "e4m3": -6, "e5m2": -14, "fp32": -126}

Numbers = tuple[int, int, str, int]
"""L, F, rounding, exponent of zero terms."""
_FP32, _FP16 = "rz32", "rne16"
UNITS: dict[tuple[str, str, str], Numbers] = {
    ("v100", "fp16", "fp32"): (4, 23, _FP32, -131),
    ("v100", "fp16", "fp16"): (4, 23, _FP16, -19),
    ("t4", "fp16", "fp32"): (8, 24, _FP32, -132),
    ("t4", "fp16", "fp16"): (8, 24, _FP16, -20),
    ("h200:wgmma", "e4m3", "fp32"): (32, 13, "rz_e8m13", -133),
    ("h200:wgmma", "e5m2", "fp32"): (32, 13, "rz_e8m13", -133),
    ("h200:wgmma", "e4m3", "fp16"): (32, 13, _FP16, -21),
    ("h200:wgmma", "e5m2", "fp16"): (32, 13, _FP16, -21),
    ("b200:tcgen05", "e4m3", "fp32"): (32, 25, _FP32, -133),
    ("b200:tcgen05", "e5m2", "fp16"): (32, 25, _FP16, -21),
}
for _name, _products, _bits, _floor in (("a100", 8, 24, -132), ("a2", 8, 24, -132), ("l40s", 8, 24, -132)):
    for _format in ("fp16", "bf16"):
        UNITS[_name, _format, "fp32"] = (_products, _bits, _FP32, _floor)
    UNITS[_name, "fp16", "fp16"] = (_products, _bits, _FP16, -20)
    UNITS[_name, "tf32", "fp32"] = (4, _bits, _FP32, _floor)
for _name in ("h100", "h200", "h200:wgmma", "b200", "b200:tcgen05"):
    for _format in ("fp16", "bf16"):
        UNITS[_name, _format, "fp32"] = (16, 25, _FP32, -133)
    UNITS[_name, "fp16", "fp16"] = (16, 25, _FP16, -21)
    UNITS[_name, "tf32", "fp32"] = (8, 25, _FP32, -133)
for _format in ("e4m3", "e5m2"):
    UNITS["l40s", _format, "fp32"] = (16, 13, "rz_e8m13", -132)
    UNITS["l40s", _format, "fp16"] = (16, 13, _FP16, -20)


def power(exponent: int) -> Fraction:
    return Fraction(2) ** exponent


def split(x: float, lowest: int) -> tuple[Fraction, int]:
    """x = s * 2^e with e clamped from below."""
    exponent = max(math.frexp(x)[1] - 1, lowest)
    return Fraction(x) / power(exponent), exponent


def rounded(value: Fraction, rounding: str) -> float:
    if value == 0:
        return 0.0
    magnitude = abs(value)
    top = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    top -= magnitude < power(top)
    if rounding == "rne16":
        quantum = power(max(top - 10, -24))
        result, limit = round(magnitude / quantum) * quantum, power(16)
    else:
        bits = 23 if rounding == "rz32" else 13
        quantum = power(max(top, -126) - bits)
        result, limit = math.floor(magnitude / quantum) * quantum, power(128)
    if rounding == "rne16" and result == 0:
        return 0.0  # also from below: measured on an H200 (tests/gpu/test_cuda_steps.py), published nowhere
    return math.copysign(math.inf if result >= limit else float(result), value)


def special(terms: list[tuple[float, float]], c: float) -> float:
    """The IEEE answer when something is not finite."""
    values = [NAN if (math.isinf(x) and y == 0) or (math.isinf(y) and x == 0) else x * y for x, y in terms] + [c]
    infinite = {v for v in values if math.isinf(v)}
    if any(math.isnan(v) for v in values) or len(infinite) == 2:
        return NAN
    return infinite.pop()


def step(a: list[float], b: list[float], c: float, dtype: str, out: str, numbers: Numbers) -> float:
    products, bits, rounding, floor = numbers
    pairs = list(zip(a, b, strict=True)) + [(0.0, 0.0)] * (products - len(a))
    if not all(math.isfinite(v) for pair in pairs for v in pair) or not math.isfinite(c):
        return special([p for p in pairs if not all(math.isfinite(v) for v in p)], c)
    terms = []
    for x, y in pairs:
        (sx, ex), (sy, ey) = split(x, MIN_EXPONENT[dtype]), split(y, MIN_EXPONENT[dtype])
        terms.append((sx * sy, ex + ey))
    terms.append(split(c, MIN_EXPONENT[out]))
    present = [exponent for s, exponent in terms if s != 0]
    if len(present) < len(terms):
        present.append(floor)
    largest = max(present)
    total = sum(int(s * power(exponent - largest + bits)) for s, exponent in terms if s != 0)
    return rounded(total * power(largest - bits), rounding)


def dot_add(a: list[float], b: list[float], c: float, dtype: str, out: str, numbers: Numbers) -> float:
    products = numbers[0]
    for k in range(0, len(a), products):
        c = step(a[k : k + products], b[k : k + products], c, dtype, out, numbers)
    return c


def fp8_by_fp16(a: list[float], b: list[float], c: float, out: str) -> float:
    """32 products of fp8 through mma.sync on Hopper and B200."""
    rounding = "rz32" if out == "fp32" else "rne16"
    numbers = (16, 25, rounding, -133 if out == "fp32" else -21)
    for k in range(0, len(a), 32):
        h = 0.0
        for group in ((0, 1), (2, 3)):
            chosen = [i for i in range(k, min(k + 32, len(a))) if i % 4 in group]
            h = step([a[i] for i in chosen], [b[i] for i in chosen], h, "fp16", out, numbers)
        if not (math.isfinite(h) and math.isfinite(c)):
            c = h + c
        elif out == "fp16":
            c = rounded(Fraction(h) + Fraction(c), "rne16")
        else:
            c = nearest32(Fraction(h) + Fraction(c))
    return c


def nearest32(value: Fraction) -> float:
    if value == 0:
        return 0.0
    magnitude = abs(value)
    top = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    top -= magnitude < power(top)
    quantum = power(max(top, -126) - 23)
    result = round(magnitude / quantum) * quantum
    return math.copysign(math.inf if result >= power(128) else float(result), value)
