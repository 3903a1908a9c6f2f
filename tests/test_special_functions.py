"""The special-function unit: every table entry, and every exponent rule on all kinds of inputs."""

import hashlib
import lzma
from pathlib import Path

import numpy as np
import pytest

from qforensics import _core, _sfu
from qforensics._sfu import sfu_tables

ROOT = Path(__file__).parents[1]
DATA = ROOT / "python/qforensics/data"
ENTRIES = 1 << 23
NAN = 0x7FFFFFFF


def unpack(name: str) -> bytes:
    return lzma.decompress((DATA / name).read_bytes())


def table(differences: np.ndarray, first: int) -> np.ndarray:
    """Bits of 2^23 results from their first differences."""
    assert differences.size == ENTRIES - 1
    steps = np.concatenate([[first], differences.astype(np.int64)])
    return np.cumsum(steps).astype(np.uint64).astype(np.uint32)


def planes(name: str) -> np.ndarray:
    return np.frombuffer(unpack(name), np.uint8).reshape(4, -1).T.copy().view("<i4").ravel()


@pytest.fixture(scope="module")
def tables() -> dict[str, np.ndarray]:
    rsqrt = np.frombuffer(unpack("rsqrt.i8.xz"), np.int8)
    return {
        "ex2": table(np.frombuffer(unpack("ex2_23.i8.xz"), np.int8), 0x3F800000),
        "rcp": table(np.frombuffer(unpack("rcp.i8.xz"), np.int8), 0x3F800000),
        "rsqrt": np.concatenate([table(rsqrt[: ENTRIES - 1], 0x3F800000), table(rsqrt[ENTRIES - 1 :], 1060439282)]),
        "lg2": table(planes("lg2.i32planes.xz"), 0),
        "lg2_below": table(planes("lg2_below1.i32planes.xz"), 0xBF7FFFFE),
    }


def floats(bits: np.ndarray | list[int]) -> np.ndarray:
    return np.asarray(bits, np.uint32).view(np.float32)


def random_floats(seed: int, count: int = 400_000) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return floats(rng.integers(0, 2**32, count, dtype=np.uint64).astype(np.uint32))


def assert_bits(found: np.ndarray, expected: np.ndarray, inputs: np.ndarray) -> None:
    wanted = np.asarray(expected, np.float32).view(np.uint32)
    wanted = np.where(np.isnan(expected), np.uint32(NAN), wanted)
    wrong = np.flatnonzero(found.view(np.uint32) != wanted)
    if wrong.size:
        i = wrong[0]
        bits = found.view(np.uint32)
        pytest.fail(f"{wrong.size} of {found.size} wrong, x = {inputs[i]!r}: {bits[i]:#x}, expected {wanted[i]:#x}")


def test_the_shipped_files_are_the_recorded_ones() -> None:
    names = sorted(path.name for path in DATA.glob("*.xz"))
    assert len(names) == 5
    for name in names:
        found = hashlib.sha256((DATA / name).read_bytes()).hexdigest()
        assert found == _sfu._SHA256[name]


def test_every_table_entry(tables: dict[str, np.ndarray]) -> None:
    sfu = sfu_tables(lg2=True)
    index = np.arange(ENTRIES, dtype=np.uint32)
    for function, name, inputs in (
        (sfu.ex2, "ex2", (index * 2.0**-23).astype(np.float32)),
        (sfu.rcp, "rcp", floats(index + 0x3F800000)),
        (sfu.rsqrt, "rsqrt", floats(np.concatenate([index, index + ENTRIES]) + 0x3F800000)),
        (sfu.lg2, "lg2", floats(index + 0x3F800000)),
        (sfu.lg2, "lg2_below", floats(index + 0x3F000000)),
    ):
        assert_bits(function(inputs), floats(tables[name]), inputs)


def test_memory_stays_small() -> None:
    assert sfu_tables().nbytes < 5 << 20
    assert sfu_tables(lg2=True).nbytes < 30 << 20
    assert sfu_tables() is sfu_tables()


def test_ex2_of_any_input(tables: dict[str, np.ndarray]) -> None:
    rng = np.random.default_rng(1)
    x = np.concatenate([random_floats(1), rng.uniform(-150, 130, 400_000).astype(np.float32)])
    finite = x[np.isfinite(x)].astype(np.float64)
    clipped = np.clip(finite, -300, 200)
    t = np.floor(np.abs(clipped) * 2**23).astype(np.int64)
    v = np.where(clipped >= 0, t, np.where(t % ENTRIES == 0, -t, -t - 1))
    exact = np.ldexp(floats(tables["ex2"])[v % ENTRIES].astype(np.float64), v >> 23)
    exact[exact < 2.0**-126] = 0.0
    with np.errstate(over="ignore"):
        expected = exact.astype(np.float32)
    inputs = finite.astype(np.float32)
    assert_bits(sfu_tables().ex2(inputs), expected, inputs)
    edges = floats([0, 0x80000000, 1, 0x80000001, 0x7F800000, 0xFF800000, 0x7FC00001, 0xFF800001])
    edges = np.concatenate([edges, np.float32([128, 127.99999, -126, -126.00001, -252, -252.5, -1e30, 1e30])])
    assert_bits(sfu_tables().ex2(edges)[:8], np.float32([1, 1, 1, 1, np.inf, 0, np.nan, np.nan]), edges)
    found = sfu_tables().ex2(edges)[8:]
    assert found[0] == np.inf
    assert 3.4e38 < found[1] < np.inf
    assert found[2] == np.float32(2.0**-126)
    assert np.array_equal(found[3:], np.float32([0, 0, 0, 0, np.inf]))


def test_rcp_of_any_input(tables: dict[str, np.ndarray]) -> None:
    x = np.concatenate([random_floats(2), floats([0, 0x80000000, 1, 0x807FFFFF, 0x7F800000, 0xFF800000, 0x7F800001])])
    x = np.concatenate([x, np.float32([2.0**126, -(2.0**127), 1.5 * 2.0**125, 1.5 * 2.0**126, -3.4e38])])
    fraction, exponent = np.frexp(np.abs(np.where(np.isfinite(x), x, 1)).astype(np.float64))
    index = ((fraction * 2 - 1) * ENTRIES).astype(np.int64)
    exact = np.ldexp(floats(tables["rcp"])[index % ENTRIES].astype(np.float64), 1 - exponent)
    exact[exact < 2.0**-126] = 0.0
    with np.errstate(over="ignore"):
        expected = exact.astype(np.float32)
    expected[np.abs(x) < 2.0**-126] = np.inf
    expected[np.isinf(x)] = 0.0
    expected = np.copysign(expected, x)
    expected[np.isnan(x)] = np.nan
    assert_bits(sfu_tables().rcp(x), expected, x)


def test_rsqrt_of_any_input(tables: dict[str, np.ndarray]) -> None:
    x = np.concatenate([random_floats(3), np.abs(random_floats(4))])
    x = np.concatenate([x, floats([0, 0x80000000, 1, 0x80000001, 0x7F800000, 0xFF800000, 0x7F800001])])
    fraction, exponent = np.frexp(np.where(np.isfinite(x) & (x >= 2.0**-126), x, 1).astype(np.float64))
    exponent -= 1
    index = ((fraction * 2 - 1) * ENTRIES).astype(np.int64) + (exponent % 2) * ENTRIES
    expected = np.ldexp(floats(tables["rsqrt"])[index].astype(np.float64), -(exponent // 2)).astype(np.float32)
    expected[x < 0] = np.nan
    tiny = np.abs(x) < 2.0**-126
    expected[tiny] = np.copysign(np.inf, x[tiny])
    expected[x == np.inf] = 0.0
    expected[np.isnan(x)] = np.nan
    assert_bits(sfu_tables().rsqrt(x), expected, x)


def test_lg2_from_its_two_binades(tables: dict[str, np.ndarray]) -> None:
    rng = np.random.default_rng(5)
    for exponent in (
        1,
        2,
        7,
        16,
        100,
        127,
        -2,
        -3,
        -20,
        -126,
    ):  # confirmed on a device up to 16; below 1/2 by the same rule
        index = rng.integers(0, ENTRIES, 20_000)
        x = np.ldexp(1 + index / ENTRIES, exponent).astype(np.float32)
        part = floats(tables["lg2" if exponent > 0 else "lg2_below"])[index].astype(np.float64)
        exact = part + (exponent if exponent > 0 else exponent + 1)
        nearest = exact.astype(np.float32)
        cut = np.where(np.abs(nearest) > np.abs(exact), np.nextafter(nearest, np.float32(0)), nearest)
        assert_bits(sfu_tables(lg2=True).lg2(x), cut, x)
    x = floats([0, 0x80000000, 1, 0x80000001, 0x7F800000, 0xFF800000, 0x7F800001, 0xBF800000, 0x3F800000])
    low = -np.inf
    expected = np.float32([low, low, low, low, np.inf, np.nan, np.nan, np.nan, 0])
    assert_bits(sfu_tables(lg2=True).lg2(x), expected, x)
    with pytest.raises(ValueError, match="made without lg2"):
        sfu_tables().lg2(x)


def test_damaged_tables_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {"ex2": unpack("ex2_23.i8.xz"), "rcp": unpack("rcp.i8.xz"), "rsqrt": unpack("rsqrt.i8.xz")}
    with pytest.raises(ValueError, match="ex2: expected 8388607 differences, found 8388606"):
        _core.SfuTables(**{**parts, "ex2": parts["ex2"][:-1]})
    with pytest.raises(ValueError, match="rcp: piece 2 of 128 is no quadratic within one unit"):
        _core.SfuTables(**{**parts, "rcp": parts["rcp"][:140_000] + b"\x05" + parts["rcp"][140_001:]})
    with pytest.raises(ValueError, match=r"ex2: entry \d+ is outside"):
        _core.SfuTables(**{**parts, "ex2": b"\x80" * (ENTRIES - 1)})
    planes = unpack("lg2.i32planes.xz")
    with pytest.raises(ValueError, match="lg2: expected 33554428 bytes of differences, found 33554427"):
        sfu_tables().with_lg2(planes[:-1], below=False)
    assert not sfu_tables().with_lg2(planes, below=False).has_lg2
    monkeypatch.setitem(_sfu._SHA256, "rcp.i8.xz", "0" * 64)
    with pytest.raises(ValueError, match=r"data/rcp\.i8\.xz: expected SHA-256 0000"):
        _sfu._tables.__wrapped__()
