"""CUDA's functions: against fp64 within CUDA's documented error, and against counts recorded on a GPU.

Bit for bit they are compared with a device by ``tests/gpu/cuda_math_check.cu``.
"""

from fractions import Fraction

import numpy as np
import pytest

from qforensics import _core
from qforensics._sfu import sfu_tables

INF = np.float32(np.inf)


def random_floats(seed: int, count: int = 1_000_000) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 2**32, count, dtype=np.uint64).astype(np.uint32).view(np.float32)
    return x[np.isfinite(x)]


def largest_error(found: np.ndarray, exact: np.ndarray) -> float:
    """In units of the last place of the exact result; NaN counts as infinite."""
    unit = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
    error = np.abs(found.astype(np.float64) - exact) / unit
    return float(np.where(np.isnan(error), np.inf, error).max())


@pytest.mark.parametrize("inputs", ["any", "fast", "slow"])
def test_sine_and_cosine(inputs: str) -> None:
    rng = np.random.default_rng(1)
    x = {
        "any": random_floats(1),
        "fast": rng.uniform(-105615, 105615, 1_000_000).astype(np.float32),
        "slow": rng.uniform(1e5, 2e6, 1_000_000).astype(np.float32),  # Payne-Hanek
    }[inputs]
    # CUDA C++ Programming Guide: sinf and cosf err by at most 2 ulp
    assert largest_error(_core.cuda_sinf(x), np.sin(x.astype(np.float64))) <= 2
    assert largest_error(_core.cuda_cosf(x), np.cos(x.astype(np.float64))) <= 2


def test_sine_is_odd_and_cosine_even() -> None:
    x = np.concatenate([random_floats(2), np.float32([0.0, -0.0, 1e-45, -1e-45])])
    assert np.array_equal(_core.cuda_sinf(-x).view(np.uint32), (-_core.cuda_sinf(x)).view(np.uint32))
    assert np.array_equal(_core.cuda_cosf(-x).view(np.uint32), _core.cuda_cosf(x).view(np.uint32))
    special = np.float32([np.inf, -np.inf, np.nan])
    assert np.array_equal(_core.cuda_sinf(special).view(np.uint32), np.full(3, 0x7FFFFFFF, np.uint32))
    assert np.array_equal(_core.cuda_cosf(special).view(np.uint32), np.full(3, 0x7FFFFFFF, np.uint32))


def test_logarithm() -> None:
    x = np.abs(random_floats(3))
    x = x[x > 0]
    assert largest_error(_core.cuda_logf(x), np.log(x.astype(np.float64))) <= 1  # CUDA documents 1 ulp
    special = np.float32([0, -0.0, np.inf, -1, -np.inf, np.nan, 1])
    bits = _core.cuda_logf(special).view(np.uint32)
    assert [hex(b) for b in bits] == ["0xff800000"] * 2 + ["0x7f800000"] + ["0x7fffffff"] * 3 + ["0x0"]


def test_exponential() -> None:
    x = np.random.default_rng(4).uniform(-87, 88.7, 1_000_000).astype(np.float32)
    assert largest_error(sfu_tables().expf(x), np.exp(x.astype(np.float64))) <= 2  # CUDA documents 2 ulp
    special = np.float32([0, -0.0, 89, 1e30, np.inf, -104.5, -1e30, -np.inf, -100])
    expected = np.float32([1, 1, INF, INF, INF, 0, 0, 0, 2.0**-144 * 0.8297])
    assert np.allclose(sfu_tables().expf(special), expected, rtol=0.4, atol=0)
    assert sfu_tables().expf(np.float32([np.nan])).view(np.uint32)[0] == 0x7FFFFFFF


def test_an_addition_after_exp_is_contracted() -> None:
    """c + expf(x) has one rounding: the exact sum of c and the parts' exact product, to nearest."""
    x = np.random.default_rng(5).uniform(-12, 2, 20_000).astype(np.float32)
    alone = sfu_tables().expf(x)  # exact product of a power of two: no rounding above the subnormal range
    for c in (1.0, 0.1, 37.25):
        found = sfu_tables().add_expf(x, c)
        assert np.array_equal(found, (np.float64(np.float32(c)) + alone.astype(np.float64)).astype(np.float32))
    deep = np.float32([-100.0])  # the product is subnormal and would lose bits: only the fused form keeps them
    tiny = Fraction(float(sfu_tables().add_expf(deep, 0.0)[0]))
    assert tiny == Fraction(float(sfu_tables().expf(deep)[0]))


def test_power() -> None:
    x = np.abs(random_floats(6, 200_000))
    x = x[x > 0]
    for y in (0.5, -0.3, 2.0, 3.0, 17.0, -5.0, 1 / 64, 1e-3):
        y = float(np.float32(y))
        with np.errstate(over="ignore", under="ignore"):
            exact = x.astype(np.float64) ** y
        normal = (exact < 3.4e38) & (exact > 1.2e-38)
        assert largest_error(sfu_tables().powf(x, y)[normal], exact[normal]) <= 4  # CUDA documents 4 ulp
    cases = [(-8, 3, -512), (-8, 2, 64), (-8, 0.5, np.nan), (0, 3, 0), (0, -3, INF), (1, np.nan, 1), (np.nan, 0, 1)]
    cases += [(-1, INF, 1), (0.5, INF, 0), (2, -INF, 0), (INF, -1, 0), (-INF, 3, -INF), (2, np.nan, np.nan)]
    cases += [(10, 60, INF), (10, -60, 0), (-10, 61, -INF)]
    for base, exponent, expected in cases:
        found = sfu_tables().powf(np.float32([base]), exponent)[0]
        assert found == expected or (np.isnan(found) and np.isnan(expected)), (base, exponent, found)
    zero = sfu_tables().powf(np.float32([-0.0]), 3.0)[0]
    assert zero == 0
    assert np.signbit(zero)


def test_rsqrtf_keeps_subnormals() -> None:
    x = np.abs(random_floats(7))
    x = np.concatenate([x[x > 0], np.float32([1e-45, 1e-40, 1.1754942e-38])])
    assert largest_error(sfu_tables().rsqrtf(x), 1 / np.sqrt(x.astype(np.float64))) <= 2  # CUDA documents 2 ulp


def test_rotary_cache_has_the_recorded_distance_from_rounded_functions() -> None:
    """On an H200, theta = 1e5, d = 64, 8,192 positions: of 524,288 fp16 entries 27 differ from the ones by a correctly
    rounded pow, and 12 from the ones by correctly rounded cos and sin."""
    cache = sfu_tables().rope_cache(theta=1e5, dim=64, positions=8192)
    assert cache.shape == (8192, 64)
    positions = np.arange(8192, dtype=np.float32)[:, None]
    exponents = np.arange(0, 64, 2, dtype=np.float32) / np.float32(64)
    base = np.float32([1e5])
    power = np.concatenate([sfu_tables().powf(base, float(e)) for e in exponents])
    rounded_power = (1e5 ** exponents.astype(np.float64)).astype(np.float32)

    def with_rounded_trig(p: np.ndarray) -> np.ndarray:
        angle = (positions * (np.float32(1) / p)).astype(np.float64)
        return np.concatenate([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)

    def with_cuda_trig(p: np.ndarray) -> np.ndarray:
        angle = positions * (np.float32(1) / p)
        return np.concatenate([_core.cuda_cosf(angle), _core.cuda_sinf(angle)], axis=1)

    half = cache.astype(np.float16)
    assert np.array_equal(with_cuda_trig(power), cache)
    assert np.count_nonzero(with_rounded_trig(power).astype(np.float16) != half) == 12
    assert np.count_nonzero(with_cuda_trig(rounded_power).astype(np.float16) != half) == 27


def test_llama3_scaling_leaves_high_frequencies_and_stretches_low_ones() -> None:
    plain = sfu_tables().rope_cache(theta=5e5, dim=128, positions=2)
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position": 8192.0}
    scaled = sfu_tables().rope_cache(theta=5e5, dim=128, positions=2, **scaling)
    # sin(f) of position 1; the reference in fp64, from the published formula of Llama 3.1
    frequency = 5e5 ** (-np.arange(0, 128, 2) / 128)
    wavelength = 2 * np.pi / frequency
    smooth = np.clip((8192 / wavelength - 1) / 3, 0, 1)
    expected = frequency * ((1 - smooth) / 8 + smooth)
    assert np.allclose(scaled[1, 64:], np.sin(expected), rtol=3e-6, atol=0)
    high = wavelength < 8192 / 4
    assert 20 < np.count_nonzero(high) < 60
    assert np.array_equal(scaled[:, 64:][:, high], plain[:, 64:][:, high])


def test_rotary_cache_refusals() -> None:
    for wrong, message in (({"dim": 63}, "even"), ({"positions": 0}, "positions"), ({"theta": -1.0}, "theta")):
        with pytest.raises(ValueError, match=message):
            sfu_tables().rope_cache(**{"theta": 1e4, "dim": 64, "positions": 4, **wrong})
