"""Operators on a GPU against the CPU's: every byte, with the tables and with the GPU's own special-function unit."""

import functools

import ml_dtypes
import numpy as np
import pytest

import operator_reference as reference
from operator_data import EPSILON, assert_same_bits, calls, differing, half
from qforensics import _core, operators
from qforensics._sfu import _differences, sfu_tables

PROFILE = "vllm-0.21-eager"
FORMS = {"fp16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16), "fp32": np.dtype(np.float32)}
HALVES = ["fp16", "bf16"]
FAMILIES = ["normal", "wide", "subnormal", "zeros", "special", "patterns"]
UNITS = ["own", "tables"]


@functools.cache
def cpu(profile: str = PROFILE) -> "_core.OperatorRuntime":
    return _core.OperatorRuntime(profile, 9, sfu_tables(), _core.best_isa(), 8)


@functools.cache
def gpu(unit: str = "own", profile: str = PROFILE) -> "_core.DeviceOperatorRuntime":
    return _core.DeviceOperatorRuntime(profile, 9, sfu_tables(), own_sfu=unit == "own")


def numbers(dtype: str, family: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Bits (uint16), or float32, of numbers that leave the ordinary path in as many ways as there are."""
    form = FORMS[dtype]
    rng = np.random.default_rng([seed, *shape])
    word = np.dtype(f"u{form.itemsize}")
    if family == "patterns":
        found = rng.integers(0, 1 << 8 * form.itemsize, shape, dtype=word)
        return found.view(np.float32) if dtype == "fp32" else found
    x = rng.standard_normal(shape)
    if family == "wide":
        spread = 14 if dtype == "fp16" else 60
        x = np.ldexp(x, rng.integers(-spread, spread, shape))
    elif family == "subnormal":
        x = np.ldexp(x, -16 if dtype == "fp16" else -130)
    elif family == "zeros":
        x = np.where(rng.random(shape) < 0.8, np.copysign(0, x), x)
    elif family == "special":
        x[rng.random(shape) < 0.5 / shape[-1]] = np.inf
        x[rng.random(shape) < 0.5 / shape[-1]] = -np.inf
        x[rng.random(shape) < 0.3 / shape[-1]] = np.nan
    with np.errstate(over="ignore"):
        found = x.astype(np.float32).astype(form)
    return found if dtype == "fp32" else found.view(np.uint16)


def same(found: np.ndarray, wanted: np.ndarray) -> None:
    """Bytes; `numbers` of a family that is not special are checked not to be all NaN by their callers."""
    assert found.dtype == wanted.dtype
    assert_same_bits(found, wanted)


def call(runtime: "_core.OperatorRuntime", operation: str, *args: object) -> list[np.ndarray]:
    with np.errstate(all="ignore"):
        found = getattr(runtime, operation)(*args)
    return list(found) if isinstance(found, tuple) else [found]


def both(unit: str, profile: str, operation: str, *args: object) -> list[np.ndarray]:
    """The GPU's results, which are the CPU's."""
    found = call(gpu(unit, profile), operation, *args)
    for f, w in zip(found, call(cpu(profile), operation, *args), strict=True):
        same(f, w)
    return found


SHAPES = [(1, 4096), (3, 768), (255, 2048), (256, 4096), (40, 8192), (300, 8192), (9, 1), (33, 12), (2, 770), (300, 20),
          (7, 40000), (260, 40008), (5000, 128), (3, 576), (300, 2304)]  # fmt: skip


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("family", FAMILIES)
def test_norms(unit: str, dtype: str, family: str) -> None:
    for rows, columns in SHAPES:
        x, r = (numbers(dtype, family, (rows, columns), seed) for seed in (1, 2))
        weight = numbers(dtype, "normal", (columns,))
        both(unit, PROFILE, "rms_norm", dtype, x, weight, 1e-6)
        both(unit, PROFILE, "fused_add_rms_norm", dtype, x, r, weight, 1e-6)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("first", "heads", "size"), [(0, 5, 128), (128, 3, 64), (4, 7, 36), (1, 2, 128), (8, 6, 64)])
def test_heads_inside_wider_rows(unit: str, dtype: str, first: int, heads: int, size: int) -> None:
    for tokens in (1, 60, 700):
        rows = numbers(dtype, "patterns", (tokens, 768 + 128), tokens)
        weight = numbers(dtype, "normal", (size,))
        both(unit, PROFILE, "head_norm", dtype, rows, weight, 1e-6, first, heads)
        cache = numbers(dtype, "normal", (90, size))
        positions = np.random.default_rng(tokens).integers(0, 90, tokens)
        both(unit, PROFILE, "rotary_heads", dtype, rows, positions, cache, first, heads)


@pytest.mark.parametrize("dtype", HALVES)
def test_a_norm_of_another_block_differs(dtype: str) -> None:
    """Negative control: from 256 rows on a row's block has 256 threads instead of up to 1,024."""
    x, r = (numbers(dtype, "normal", (256, 8192), seed) for seed in (1, 2))
    weight = numbers(dtype, "normal", (8192,))
    many, few = (call(gpu(), "rms_norm", dtype, x[:n], weight, 1e-6)[0][:255] for n in (256, 255))
    assert differing(many, few) > 0
    many, few = (call(gpu(), "fused_add_rms_norm", dtype, x[:n], r[:n], weight, 1e-6)[0][:255] for n in (256, 255))
    assert differing(many, few) > 0


def other_tables() -> "_core.SfuTables":
    """Correctly rounded ex2, and rsqrt of [1, 2): a unit that no GPU here has."""
    row = (1 << 23) - 1
    f = np.arange(row + 1) * 2.0**-23
    ex2, even = (
        np.diff(curve.astype(np.float32).view(np.int32)).astype(np.int8).tobytes()
        for curve in (np.exp2(f), 1 / np.sqrt(1 + f))
    )
    odd = _differences("rsqrt.i8.xz", 2 * row)[row:]
    return _core.SfuTables(ex2=ex2, rcp=_differences("rcp.i8.xz", row), rsqrt=even + odd)


def test_another_table_is_read_and_shows() -> None:
    """Negative control: the tables decide, and the own unit is refused where it differs from them."""
    tables = other_tables()
    device = _core.DeviceOperatorRuntime(PROFILE, 9, tables, own_sfu=True)
    host = _core.OperatorRuntime(PROFILE, 9, tables, _core.best_isa(), 8)
    assert not device.own_sfu
    x, weight = numbers("fp16", "normal", (500, 4096)), numbers("fp16", "normal", (4096,))
    logits = numbers("fp16", "normal", (20, 49152))
    for operation, args in [
        ("rms_norm", ("fp16", x, weight, 1e-6)),
        ("silu_and_mul", ("fp16", x)),
        ("log_softmax", ("fp16", logits)),
        ("rotary_cache", ("fp16", 1e5, 128, 4096, 1.0, 1.0, 4.0, 8192.0)),
    ]:
        found = call(device, operation, *args)[0]
        same(found, call(host, operation, *args)[0])
        if operation != "rotary_cache":  # powf reads rcp, which is unchanged
            assert differing(found, call(gpu(), operation, *args)[0]) > 0


def test_own_unit_is_the_tables_unit() -> None:
    """Where this fails, results are right all the same (by tables) but slow: the GPU is none whose tables we ship."""
    assert gpu("own").own_sfu
    assert not gpu("tables").own_sfu


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("dtype", HALVES)
def test_silu(unit: str, dtype: str) -> None:
    gate = np.arange(1 << 16, dtype=np.uint16).reshape(8, -1)  # every number
    both(unit, PROFILE, "silu_and_mul", dtype, np.concatenate([gate, numbers(dtype, "patterns", gate.shape)], axis=1))
    for family in FAMILIES:
        for rows, columns in [(1, 12288), (70, 1536), (5, 7), (3, 2050), (1, 1)]:
            both(unit, PROFILE, "silu_and_mul", dtype, numbers(dtype, family, (rows, 2 * columns)))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("family", FAMILIES)
def test_rotary(dtype: str, family: str) -> None:
    for tokens, heads, size in [(1, 32, 128), (400, 8, 64), (50, 3, 6), (3, 40, 20)]:
        x = numbers(dtype, family, (tokens, heads, size))
        cache = numbers(dtype, family, (500, size), 1)
        positions = np.random.default_rng(0).integers(0, 500, tokens)
        both("own", PROFILE, "rotary", dtype, x, positions, cache)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("llama3", [(1.0, 1.0, 4.0, 8192.0), (8.0, 1.0, 4.0, 8192.0)])
def test_rotary_cache(dtype: str, llama3: tuple[float, float, float, float]) -> None:
    for theta, size, positions in [(1e6, 128, 40960), (1e5, 64, 8192), (1e4, 80, 1000), (5e5, 2, 7)]:
        both("tables", PROFILE, "rotary_cache", dtype, theta, size, positions, *llama3)


#: of models, and both sides of every change in how torch's kernels read a row; odd ones start each row elsewhere
LOGITS = [(1, 151936), (9, 49152), (3, 32000), (9, 49155), (2, 151669), (40, 8192), (9, 1003), (5, 100), (3, 8195),
          (2, 151937), (2, 1), (4, 50000), (2, 24504), (2, 24512), (2, 9216), (5, 9217), (5, 9220), (2, 12252),
          (2, 12256), (9, 9219)]  # fmt: skip


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("family", FAMILIES)
def test_log_softmax_and_top_k(unit: str, dtype: str, family: str) -> None:
    for rows, columns in LOGITS:
        logits = numbers(dtype, family, (rows, columns))
        logprobs = both(unit, PROFILE, "log_softmax", dtype, logits)[0]
        for k in {1, min(20, columns), min(300, columns)}:
            wanted = both(unit, PROFILE, "top_k", logprobs, k)
            pairs = np.random.default_rng(k).integers(0, [rows, columns], (50, 2)).astype(np.int32)
            pick_rows, pick_ids = (np.ascontiguousarray(p) for p in pairs.T)
            found = call(gpu(unit), "top_logprobs", dtype, logits, k, pick_rows, pick_ids)
            for f, w in zip(found, [*wanted, logprobs[pick_rows, pick_ids]], strict=True):
                same(f, w)


@pytest.mark.parametrize("dtype", HALVES)
def test_where_a_row_starts_shows(dtype: str) -> None:
    """Negative control: the same row has other bits where it starts at another address, and only there."""
    rows = np.repeat(numbers(dtype, "normal", (1, 49155), 29), 9, axis=0)
    found = both("own", PROFILE, "log_softmax", dtype, rows)[0]
    vector = 8 if dtype == "fp16" else 4
    same(found[vector:], found[: 9 - vector])
    assert differing(found[1:vector], np.broadcast_to(found[0], found[1:vector].shape)) > 0


def test_log_softmax_of_another_block_differs() -> None:
    """Negative control: 512 threads instead of 1,024."""
    logits = (np.random.default_rng(1).standard_normal((8, 151936)) * 4).astype(np.float16)
    found = operators.log_softmax(logits, executor="cuda")
    assert_same_bits(found, reference.log_softmax(logits))
    assert differing(found, reference.log_softmax(logits, threads=512)) > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_top_k_of_any_numbers(family: str) -> None:
    for rows, columns in [(4, 40), (3, 5000), (2, 151936), (5, 1)]:
        values = numbers("fp32", family, (rows, columns))
        for k in {0, 1, min(33, columns), min(1024, columns), min(1500, columns), min(columns, 5000)}:
            both("own", PROFILE, "top_k", values, k)


def test_top_k_of_ties() -> None:
    rng = np.random.default_rng(1)
    for columns, kinds in [(500, 6), (151936, 50), (151936, 1), (3000, 2), (151936, 60000)]:
        values = -rng.integers(0, kinds, (3, columns)).astype(np.float32)
        for k in (1, 20, 400):
            ids, _ = both("own", PROFILE, "top_k", values, k)
            order = np.lexsort((np.broadcast_to(np.arange(columns), values.shape), -values), axis=1)[:, :k]
            np.testing.assert_array_equal(ids, order)


@pytest.mark.parametrize("family", FAMILIES)
def test_fp32_definitions(family: str) -> None:
    run = functools.partial(both, "own", "fp32")
    for rows, columns in [(1, 4096), (300, 768), (20, 5), (3, 4097), (2, 12288)]:
        x, r = (numbers("fp32", family, (rows, columns), seed) for seed in (1, 2))
        weight = numbers("fp32", "normal", (columns,))
        run("rms_norm", "fp32", x, weight, 1e-6)
        run("fused_add_rms_norm", "fp32", x, r, weight, 1e-6)
        run("silu_and_mul", "fp32", numbers("fp32", family, (rows, 2 * columns)))
        run("log_softmax", "fp32", x)
    run("log_softmax", "fp32", numbers("fp32", family, (4, 151936)))
    run("head_norm", "fp32", numbers("fp32", family, (50, 700)), numbers("fp32", "normal", (64,)), 1e-5, 60, 5)
    for tokens, heads, size in [(1, 32, 128), (60, 3, 6)]:
        x, cache = numbers("fp32", family, (tokens, heads, size)), numbers("fp32", family, (500, size), 1)
        run("rotary", "fp32", x, np.random.default_rng(0).integers(0, 500, tokens), cache)
    run("rotary_cache", "fp32", 1e6, 128, 2000, 8.0, 1.0, 4.0, 8192.0)


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
@pytest.mark.parametrize("columns", [4096, 24, 7])
def test_embedding(dtype: str, columns: int) -> None:
    table = numbers(dtype, "patterns", (1000, columns))
    ids = np.random.default_rng(0).integers(0, 1000, 300)
    both("own", PROFILE, "embedding", dtype, table, ids)


def test_faults_name_their_row() -> None:
    table = np.zeros((50, 24), np.float16)
    with pytest.raises(_core.CoreError, match="token id 50 at position 1"):
        operators.embedding(table, [0, 50, 51], executor="cuda")
    with pytest.raises(_core.CoreError, match="token id -1 at position 0"):
        operators.embedding(table, [-1], executor="cuda")
    with pytest.raises(_core.CoreError, match="position 4 of token 2"):
        operators.rotary(np.zeros((3, 1, 64), np.float16), [0, 3, 4], np.zeros((4, 64), np.float16), executor="cuda")
    assert_same_bits(operators.embedding(table, [1], executor="cuda"), table[:1])  # a fault is told once
    with pytest.raises(_core.CoreError, match="it is defined for fp16 and bf16"):
        operators.silu_and_mul(np.zeros((1, 4), np.float32), executor="cuda")


def test_recorded_bits() -> None:
    """What a real vLLM computed on an H200."""
    plain = "model.layers.0.input_layernorm"
    for name in calls(plain):
        found = operators.rms_norm(half(f"{name}.in0"), half(f"weight/{plain}"), epsilon=EPSILON, executor="cuda")
        assert_same_bits(found, half(f"{name}.out0"))
    for module in ("model.layers.0.post_attention_layernorm", "model.norm"):
        for name in calls(module):
            found, residual = operators.fused_add_rms_norm(
                half(f"{name}.in0"), half(f"{name}.in1"), half(f"weight/{module}"), epsilon=EPSILON, executor="cuda"
            )
            assert_same_bits(found, half(f"{name}.out0"))
            assert_same_bits(residual, half(f"{name}.out1"))
    for name in calls("model.layers.29.mlp.act_fn"):
        assert_same_bits(operators.silu_and_mul(half(f"{name}.in0"), executor="cuda"), half(f"{name}.out0"))
