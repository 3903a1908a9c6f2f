"""Attention on CUDA against the CPU's definitions: every bit."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from qforensics import _core, operators

FP16, BF16 = np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)
#: unit of the emulated GPU: (products, fraction bits, zero exponent), and its SM count
UNITS = {"h200": ((16, 25, -133), 132), "a100": ((8, 24, -132), 108), "v100": ((4, 23, -131), 80)}
FAMILIES = ["normal", "peaked", "wide", "zeros", "special"]


def sequence(
    family: str, dtype: "np.dtype[Any]", queries: int, keys: int, heads: tuple[int, int], size: int, seed: int
) -> list[np.ndarray]:
    """q, k, v that leave the fast path in as many ways as there are."""
    rng = np.random.default_rng(seed)
    q, k, v = (rng.standard_normal((n, h, size)) for n, h in [(queries, heads[0]), (keys, heads[1]), (keys, heads[1])])
    if family == "peaked":  # probabilities from 1 down to far below the format's smallest
        q *= 40
        k[rng.random(keys) < 0.5] *= 0.01
    elif family == "wide":
        high = 5 if dtype == FP16 else 40
        q, k, v = (x * 2.0 ** rng.integers(-14 if dtype == FP16 else -70, high, x.shape) for x in (q, k, v))
    elif family == "zeros":
        q[rng.random(q.shape) < 0.5] = 0
        k[: keys // 2] = 0
        v[rng.random(keys) < 0.5] = -0.0
        v[:, :, : size // 3] = 0
    elif family == "special":
        for x, rate in ((q, 0.05 / size), (k, 0.2 / size), (v, 0.02 / size)):
            x[rng.random(x.shape) < rate] = np.inf
            x[rng.random(x.shape) < rate] = np.nan
    with np.errstate(over="ignore", invalid="ignore"):
        return [x.astype(dtype) for x in (q, k, v)]


def run(sequences: list[list[np.ndarray]], unit: str = "a100", **options: Any) -> list[np.ndarray]:
    numbers, sm_count = UNITS[unit]
    q, k, v = (list(x) for x in zip(*sequences, strict=True))
    return operators.attention(q, k, v, scale=q[0].shape[2] ** -0.5, sm_count=sm_count, unit=numbers, **options)


def bits(array: np.ndarray) -> np.ndarray:
    return array.view(np.uint16 if array.dtype.itemsize == 2 else np.uint32)


def assert_equals_the_cpu(sequences: list[list[np.ndarray]], unit: str, **options: Any) -> list[np.ndarray]:
    found = run(sequences, unit, executor="cuda", **options)
    options.pop("scheme", None)
    for i, (a, b) in enumerate(zip(found, run(sequences, unit, **options), strict=True)):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        wrong = np.argwhere(bits(a) != bits(b))
        if len(wrong):
            at = tuple(wrong[0])
            pytest.fail(f"sequence {i}: {len(wrong)} of {a.size} differ, first at {at}: {bits(a)[at]:#x} instead of "
                        f"{bits(b)[at]:#x}; last at {tuple(wrong[-1])}")  # fmt: skip
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("unit", list(UNITS))
@pytest.mark.parametrize("dtype", [FP16, BF16], ids=str)
@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("definition", ["fa3", "fa2"])
def test_prefill(family: str, unit: str, dtype: "np.dtype[Any]", size: int, definition: str) -> None:
    inputs = sequence(family, dtype, 290, 290, (3, 1), size, 1)
    assert_equals_the_cpu([inputs], unit, definition=definition)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("unit", ["a100", "h200"])
@pytest.mark.parametrize("dtype", [FP16, BF16], ids=str)
@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("definition", ["fa3", "fa2"])
def test_decode_with_split_keys(family: str, unit: str, dtype: "np.dtype[Any]", size: int, definition: str) -> None:
    sizes = {"queries": 1, "keys": 1500, "heads": 8, "kv_heads": 2, "head_size": size, "sm_count": UNITS[unit][1]}
    assert operators.attention_splits(**sizes, definition=definition) > 1
    assert_equals_the_cpu([sequence(family, dtype, 1, 1500, (8, 2), size, 2)], unit, definition=definition)


@pytest.mark.parametrize("dtype", [FP16, BF16], ids=str)
@pytest.mark.parametrize("heads", [(4, 4), (3, 1), (8, 2), (8, 1)], ids=str)
@pytest.mark.parametrize("queries", [1, 2, 5, 33, 100])
@pytest.mark.parametrize("definition", ["fa3", "fa2"])
def test_chunks_and_groups(dtype: "np.dtype[Any]", heads: tuple[int, int], queries: int, definition: str) -> None:
    assert_equals_the_cpu([sequence("normal", dtype, queries, 417, heads, 64, queries)], "a100", definition=definition)
    assert_equals_the_cpu([sequence("peaked", dtype, queries, 230, heads, 128, 7)], "h200", definition=definition)


@pytest.mark.parametrize("definition", ["fa3", "fa2"])
def test_several_sequences(definition: str) -> None:
    lengths = [(1, 1), (1, 1200), (70, 70), (3, 900), (1, 128), (40, 500)]
    many = [sequence("normal", FP16, q, k, (8, 2), 64, i) for i, (q, k) in enumerate(lengths)]
    assert_equals_the_cpu(many, "a100", definition=definition)
    decode = [sequence("normal", BF16, 1, 300 * (i + 1), (8, 2), 128, i) for i in range(5)]
    assert_equals_the_cpu(decode, "h200", definition=definition)


def test_a_small_workspace_takes_several_batches() -> None:
    decode = [sequence("normal", FP16, 1, 700 * (i + 1), (8, 2), 64, i) for i in range(4)]
    wanted = run(decode, definition="fa2")
    call = [[bits(s[i]) for s in decode] for i in range(3)]
    unit, sm_count = UNITS["a100"]
    runtime = _core.DeviceOperatorRuntime(operators.PROFILE, 8, operators.sfu_tables(lg2=True), own_sfu=True)
    found = runtime.attention("fp16", *call, 0.125, sm_count, *unit, workspace=1)
    for a, b in zip(found, wanted, strict=True):
        assert (a == bits(b)).all()


@pytest.mark.parametrize("heads", [(4, 4), (6, 2)], ids=str)
@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (1, 500), (77, 77), (40, 300)])
def test_fp32(heads: tuple[int, int], size: int, queries: int, keys: int) -> None:
    inputs = sequence("normal", np.dtype(np.float32), queries, keys, heads, size, keys)
    assert_equals_the_cpu([inputs], "a100", definition="fp32", profile="fp32")
    inputs[0] *= 30
    assert_equals_the_cpu([inputs], "a100", definition="fp32", profile="fp32")
    special = sequence("special", np.dtype(np.float32), queries, keys, heads, size, keys)
    assert_equals_the_cpu([special], "a100", definition="fp32", profile="fp32")


@pytest.mark.parametrize("unit", ["a100", "h200"])
def test_another_scheme_gives_the_same_bits(unit: str) -> None:
    inputs = sequence("normal", FP16, 20, 90, (4, 2), 64, 3)
    assert_equals_the_cpu([inputs], unit, definition="fa2", scheme="definition")


def test_the_wrong_unit_shows() -> None:
    """Negative control: the GPU's own steps are not an A100's."""
    inputs = sequence("normal", FP16, 300, 300, (4, 2), 128, 4)
    right = assert_equals_the_cpu([inputs], "a100", definition="fa2")[0]
    wrong = run([inputs], "a100", definition="fa2", executor="cuda", scheme="native")[0]
    assert (bits(right) != bits(wrong)).any()


def test_the_wrong_split_shows() -> None:
    """Negative control: another GPU's SM count cuts the keys elsewhere."""
    q, k, v = ([x] for x in sequence("normal", FP16, 1, 1500, (8, 2), 64, 5))
    call = {"scale": 0.125, "unit": UNITS["a100"][0], "definition": "fa2"}
    wanted = operators.attention(q, k, v, sm_count=108, **call)[0]
    found = operators.attention(q, k, v, sm_count=1, executor="cuda", **call)[0]
    assert (bits(found) != bits(wanted)).any()


def test_which_scheme_runs() -> None:
    chosen = {unit: _core.attention_scheme(*numbers[:2], 90) for unit, (numbers, _) in UNITS.items()}
    assert chosen == {"h200": "native", "a100": "pinned", "v100": "pinned"}
    assert _core.attention_scheme(8, 24, 80) == "native"
    assert _core.attention_scheme(16, 25, 80) == "definition"
