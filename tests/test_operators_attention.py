"""Attention: recorded bits of FlashAttention 3 (and 2, within a block), an independent version, wrong alternatives."""

from typing import Any

import numpy as np
import pytest

import operator_reference_attention as reference
from operator_data import assert_same_bits, attention_call, calls, differing
from qforensics import _core, operators

ISAS = [i for i in ("portable", "avx2", "avx512") if i <= _core.best_isa() or i == "portable"]
SHORT = [name for layer in (0, 29) for name in calls(f"model.layers.{layer}.self_attn.attn")]
LONG = [f"long/layer{layer}.call{call}" for layer in (0, 29) for call in (0, 1)]


def run(q: np.ndarray, k: np.ndarray, v: np.ndarray, **options: object) -> np.ndarray:
    return operators.attention([q], [k], [v], scale=0.125, **options)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("definition", ["fa3", "fa2"])
def test_one_block_of_keys_matches_the_recording(definition: str, isa: str) -> None:
    assert len(SHORT) == 14
    for name in SHORT:
        q, k, v, expected = attention_call(name)
        assert_same_bits(run(q, k, v, definition=definition, isa=isa), expected)


@pytest.mark.parametrize("isa", ISAS)
def test_several_blocks_of_keys_match_the_recording(isa: str) -> None:
    for name in LONG:
        q, k, v, expected = attention_call(name)
        assert_same_bits(run(q, k, v, isa=isa), expected)


def test_other_tiles_differ_on_several_blocks() -> None:
    q, k, v, expected = attention_call("long/layer29.call0")
    assert differing(run(q, k, v, definition="fa2"), expected) > 0  # 256 keys at once: one block


@pytest.mark.parametrize(
    "change",
    [
        {"exact_exp2": True},
        {"divide": True},
        {"quad_order": "((0+1)+2)+3"},
        {"subtract_first": True},
        {"probabilities_in_fp32": True},
        {"unit": (8, 25)},
    ],
    ids=str,
)
def test_wrong_alternatives_differ(change: dict[str, Any]) -> None:
    assert any(
        differing(reference.attention(q, k, v, wrong=reference.Wrong(**change)), expected)
        for q, k, v, expected in map(attention_call, SHORT)
    )


def test_smaller_blocks_of_keys_differ() -> None:
    q, k, v, expected = attention_call(SHORT[0])
    assert differing(reference.attention(q, k, v, block=16), expected) > 0


def test_the_independent_version_matches_the_recording() -> None:
    for name in [SHORT[0], "long/layer29.call1"]:
        q, k, v, expected = attention_call(name)
        assert_same_bits(reference.attention(q, k, v), expected)
    q, k, v, expected = attention_call("long/layer0.call0")
    assert_same_bits(reference.attention(q, k, v, block=128), expected)


def sample(queries: int, keys: int, heads: int, kv_heads: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(keys * 7 + queries)
    shapes = [(queries, heads, size), (keys, kv_heads, size), (keys, kv_heads, size)]
    q, k, v = (rng.standard_normal(shape).astype(np.float16) for shape in shapes)
    return q * np.float16(2), k, v


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("queries", "keys", "heads", "kv_heads", "size", "block"),
    [
        (1, 200, 4, 2, 64, 192),
        (1, 150, 2, 2, 128, 128),
        (20, 210, 4, 1, 64, 128),
        (3, 260, 6, 2, 64, 192),
        (70, 140, 2, 2, 128, 128),
    ],
)
def test_shapes_match_the_independent_version(
    queries: int, keys: int, heads: int, kv_heads: int, size: int, block: int, isa: str
) -> None:
    q, k, v = sample(queries, keys, heads, kv_heads, size)
    assert_same_bits(run(q, k, v, isa=isa), reference.attention(q, k, v, block=block))


def test_a_batch_of_short_sequences_is_its_sequences() -> None:
    parts = [sample(n, m, 4, 2, 64) for n, m in ((1, 40), (12, 12), (5, 100))]
    together = operators.attention(*(list(x) for x in zip(*parts, strict=True)), scale=0.125)
    for (q, k, v), found in zip(parts, together, strict=True):
        assert_same_bits(found, run(q, k, v))  # at most one block of keys: the tile makes no difference


def test_prepared_panels_change_no_bit() -> None:
    q, k, v = sample(60, 60, 12, 4, 64)
    panels = _core.KeyValuePanels(4, 64)
    for end in (17, 18, 19, 50, 60):
        new = q[max(0, panels.keys) : end]
        found = run(new, k[:end], v[:end], panels=[panels])
        assert panels.keys == end
        assert_same_bits(found, run(new, k[:end], v[:end]))
    panels.truncate(21)
    other = sample(60, 60, 12, 4, 64)[2] + np.float16(1)
    mixed = np.concatenate([v[:21], other[21:25]])
    assert_same_bits(run(q[24:25], k[:25], mixed, panels=[panels]), run(q[24:25], k[:25], mixed))


def test_sizes_that_contradict_each_other_are_refused() -> None:
    q, k, v = sample(5, 5, 4, 2, 64)
    with pytest.raises(_core.CoreError, match="5 queries and 4 keys"):
        run(q, k[:4].copy(), v[:4].copy())
    with pytest.raises(_core.CoreError, match="head size 32"):
        run(q[..., :32].copy(), k[..., :32].copy(), v[..., :32].copy())


def test_bf16_is_close_to_fp32() -> None:
    import ml_dtypes

    q, k, v = (a.astype(ml_dtypes.bfloat16) for a in sample(40, 300, 4, 2, 64))
    exact = operators.attention(*([a.astype(np.float32)] for a in (q, k, v)), scale=0.125, profile="fp32")[0]
    # weights and outputs have 8 significant bits; the outputs are averages of numbers of size 1
    np.testing.assert_allclose(run(q, k, v).astype(np.float32), exact, rtol=2.0**-7, atol=2.0**-8)
