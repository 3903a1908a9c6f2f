"""The fp32 profile against exact (float64) versions, and the table of definitions."""

from pathlib import Path

import numpy as np
import pytest

from operator_data import EPSILON, half
from qforensics import _core, operators
from qforensics._sfu import sfu_tables

FP32 = {"profile": "fp32"}
# A few fp32 roundings of numbers near the result's size; NaN fails.
TIGHT = 1e-6


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_norms() -> None:
    x = (rng().standard_normal((20, 576)) * 3).astype(np.float32)
    w = rng().standard_normal(576).astype(np.float32)
    exact = x.astype(np.float64) / np.sqrt((x.astype(np.float64) ** 2).mean(axis=1, keepdims=True) + EPSILON) * w
    np.testing.assert_allclose(operators.rms_norm(x, w, epsilon=EPSILON, **FP32), exact, rtol=TIGHT, atol=1e-12)
    out, residual = operators.fused_add_rms_norm(x - 1, np.ones_like(x), w, epsilon=EPSILON, **FP32)
    np.testing.assert_array_equal(residual, (x - 1) + np.float32(1))
    np.testing.assert_allclose(out, exact, rtol=1e-5, atol=1e-5)


def test_silu() -> None:
    x = np.concatenate([np.linspace(-120, 120, 4096), np.zeros(4096) + 1.5]).astype(np.float32)[None]
    gate, up = x[:, :4096].astype(np.float64), x[:, 4096:].astype(np.float64)
    exact = gate / (1 + np.exp(-gate)) * up
    # below -87 the exponential is 0 instead of 1e-38
    np.testing.assert_allclose(operators.silu_and_mul(x, **FP32), exact, rtol=TIGHT, atol=1e-35)


def test_nan_goes_through_as_one_pattern() -> None:
    x = rng().standard_normal((3, 64)).astype(np.float32)
    x[0, 7] = np.nan
    x[1, 5] = np.inf  # inf - inf
    x[2, 0] = np.array(0xFFC12345, np.uint32).view(np.float32)
    one = 0x7FFFFFFF  # what a GPU makes
    w = np.ones(64, np.float32)
    for found in (operators.log_softmax(x, **FP32), operators.rms_norm(x[::2], w, epsilon=EPSILON, **FP32)):
        assert (found.view(np.uint32) == one).all()
    found = operators.silu_and_mul(x, **FP32)
    assert set(found[np.isnan(found)].view(np.uint32).tolist()) == {one}
    assert (operators.log_softmax(x.astype(np.float16)).view(np.uint32) == one).all()


def test_top_k_ranks_nan_last() -> None:
    x = np.array([[np.nan, -1, np.nan, -np.inf, 0, -0.0]], np.float32)
    ids, values = operators.top_k(x, 6)
    assert ids.tolist() == [[4, 5, 1, 3, 0, 2]]
    assert np.isnan(values[0, 4:]).all()
    ids, _ = operators.top_k(np.full((1, 600), np.nan, np.float32), 40)
    assert ids.tolist() == [list(range(40))]


def test_log_softmax() -> None:
    x = (rng().standard_normal((4, 49152)) * 5).astype(np.float32)
    shifted = x.astype(np.float64) - x.max(axis=1, keepdims=True)
    exact = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(operators.log_softmax(x, **FP32), exact, rtol=TIGHT, atol=TIGHT)


@pytest.mark.parametrize(
    ("queries", "keys", "heads", "kv_heads", "size"), [(50, 50, 6, 2, 64), (1, 300, 4, 4, 128), (7, 40, 4, 1, 64)]
)
def test_attention(queries: int, keys: int, heads: int, kv_heads: int, size: int) -> None:
    g = rng()
    q, k, v = (
        g.standard_normal(s).astype(np.float32)
        for s in ((queries, heads, size), (keys, kv_heads, size), (keys, kv_heads, size))
    )
    found = operators.attention([q], [k], [v], scale=size**-0.5, **FP32)[0]
    kk, vv = (np.repeat(a.astype(np.float64), heads // kv_heads, axis=1) for a in (k, v))
    scores = np.einsum("qhd,khd->hqk", q.astype(np.float64), kk) * np.float32(size**-0.5)
    scores[:, np.arange(keys)[None] > (keys - queries + np.arange(queries))[:, None]] = -np.inf
    p = np.exp(scores - scores.max(axis=2, keepdims=True))
    exact = np.einsum("hqk,khd->qhd", p / p.sum(axis=2, keepdims=True), vv)
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=2e-6)


def test_rotary() -> None:
    cache = operators.rotary_cache(theta=1e4, head_size=64, positions=100, dtype=np.float32, **FP32)
    x = rng().standard_normal((3, 2, 64)).astype(np.float32)
    found = operators.rotary(x, [0, 7, 99], cache, **FP32)
    turned = (x[..., :32] + 1j * x[..., 32:]) * (cache[[0, 7, 99], :32] + 1j * cache[[0, 7, 99], 32:])[:, None]
    np.testing.assert_allclose(found, np.concatenate([turned.real, turned.imag], axis=2), rtol=0, atol=TIGHT)


def test_fp32_needs_no_tables_and_claims_nothing() -> None:
    runtime = _core.OperatorRuntime("fp32", 9, None, "portable", 2)
    runtime.silu_and_mul("fp32", np.ones((1, 4), np.float32))
    assert runtime.unconfirmed == []


def test_every_definition_has_its_file_and_a_source() -> None:
    folder = Path(__file__).parents[1] / "csrc" / "operators"
    for operator, definition, source in operators.definitions():
        assert source
        own = folder / f"{operator}_{definition}.cpp"
        assert own.exists() or (operator, definition) == ("fused_add_rms_norm", "fp32"), own
        device = folder / "cuda" / f"{operator}_{definition}.cu"
        assert device.exists() or operator == "attention", device
    assert operators.profiles() == ["vllm-0.21-eager", "fp32"]
    with pytest.raises(_core.CoreError, match="unknown engine profile 'vllm'; one of: vllm"):
        operators.rms_norm(half("weight/model.norm")[None], half("weight/model.norm"), epsilon=1.0, profile="vllm")


def test_runs_say_what_no_recording_confirms() -> None:
    def notes(major: int, calls: list[tuple[str, tuple[object, ...]]]) -> list[str]:
        runtime = _core.OperatorRuntime("vllm-0.21-eager", major, sfu_tables(lg2=True), "portable", 1)
        for name, arguments in calls:
            getattr(runtime, name)(*arguments)
        return list(runtime.unconfirmed)

    def zeros(*shape: int) -> np.ndarray:
        return np.zeros(shape, np.uint16)

    def attention(dtype: str, queries: int, keys: int, size: int, batch: int = 1) -> tuple[str, tuple[object, ...]]:
        q, k = [zeros(queries, 2, size)] * batch, [zeros(keys, 2, size)] * batch
        return "attention", (dtype, q, k, k, 0.125, 132, 16, 25, -133, [])

    norm = ("rms_norm", ("fp16", zeros(2, 768), zeros(768), 1e-5))
    assert notes(9, [norm, attention("fp16", 30, 30, 64), attention("fp16", 1, 30, 64)]) == []
    assert notes(9, [attention("bf16", 3, 3, 64), attention("fp16", 3, 3, 128)]) == []
    assert any("in chunks" in note for note in notes(9, [attention("fp16", 3, 9, 64)]))
    assert any("bf16" in note for note in notes(8, [attention("bf16", 3, 3, 64)]))
    assert notes(9, [attention("fp16", 3, 3, 64, batch=2)]) == []  # a whole batch was recorded
    assert any("several sequences" in note for note in notes(8, [attention("fp16", 3, 3, 64, batch=2)]))
    assert any("1400 keys" in note for note in notes(9, [attention("fp16", 2, 1400, 64)]))
    assert notes(9, [attention("fp16", 1, 1400, 64)]) == []
    assert any("5000 keys" in note for note in notes(9, [attention("fp16", 1, 5000, 64)]))
    assert any("fa2" in note for note in notes(8, [attention("fp16", 3, 3, 64)]))
    assert any("row length" in note for note in notes(9, [("rms_norm", ("fp16", zeros(2, 8192), zeros(8192), 1e-5))]))
