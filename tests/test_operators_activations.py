"""Embedding, rotary, silu, log-softmax, top-k: recorded bits, an independent version, wrong alternatives."""

import numpy as np
import pytest

import operator_reference as reference
from operator_data import VARIANTS, assert_same_bits, calls, differing, half, recorded
from qforensics import _core, operators

ISAS = [i for i in ("portable", "avx2", "avx512") if i <= _core.best_isa() or i == "portable"]
ACTIVATIONS = [name for layer in (0, 29) for name in calls(f"model.layers.{layer}.mlp.act_fn")]


def test_embedding_copies_rows() -> None:
    table = np.random.default_rng(0).integers(0, 1 << 16, (50, 24), dtype=np.uint16).view(np.float16)
    ids = np.array([3, 49, 0, 3])
    assert_same_bits(operators.embedding(table, ids), table[ids])
    with pytest.raises(_core.CoreError, match="token id 50 at position 1"):
        operators.embedding(table, [0, 50])


@pytest.mark.parametrize("isa", ISAS)
def test_rotary_matches_the_recording(isa: str) -> None:
    cache = operators.rotary_cache(theta=1e5, head_size=64, positions=128)
    name = "model.layers.0.self_attn.rotary_emb"
    assert len(calls(name)) == 2
    for call in calls(name):
        positions = recorded()[f"{call}.in0"]
        for source, heads, result in (("in1", 12, "out0"), ("in2", 4, "out1")):
            x = half(f"{call}.{source}").reshape(-1, heads, 64)
            found = operators.rotary(x, positions, cache, isa=isa)
            assert_same_bits(found.reshape(len(x), -1), half(f"{call}.{result}"))
            plain = operators.rotary(x, np.roll(positions, 1), cache)
            assert differing(plain.reshape(len(x), -1), half(f"{call}.{result}")) > 0


def test_rotary_needs_positions_inside_the_cache() -> None:
    cache = operators.rotary_cache(theta=1e4, head_size=64, positions=4)
    with pytest.raises(_core.CoreError, match="position 4 of token 0"):
        operators.rotary(np.zeros((1, 1, 64), np.float16), [4], cache)


@pytest.mark.parametrize("llama3", [None, (8.0, 1.0, 4.0, 64)])
def test_rotary_caches_agree_with_the_definition(llama3: tuple[float, float, float, int] | None) -> None:
    size, positions, theta = 128, 3000, 5e5
    frequency = theta ** (-np.arange(0, size, 2) / size)
    if llama3:
        factor, low, high, original = llama3
        turns = original * frequency / (2 * np.pi)
        smooth = np.clip((turns - low) / (high - low), 0, 1)
        frequency = (1 - smooth) * frequency / factor + smooth * frequency
    angle = np.arange(positions)[:, None] * frequency
    exact = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    double = operators.rotary_cache(
        theta=theta, head_size=size, positions=positions, dtype=np.float32, llama3=llama3, profile="fp32"
    )
    np.testing.assert_allclose(double, exact, rtol=0, atol=1e-7)
    half_cache = operators.rotary_cache(theta=theta, head_size=size, positions=positions, llama3=llama3)
    # an angle up to 3,000 in fp32, its frequency a few units off: 3,000 * 2^-22, and half a unit of fp16
    np.testing.assert_allclose(half_cache.astype(np.float64), exact, rtol=0, atol=3000 * 2.0**-22 + 2.0**-12)


@pytest.mark.parametrize("isa", ISAS)
def test_silu_matches_the_recording(isa: str) -> None:
    assert len(ACTIVATIONS) == 14
    for name in ACTIVATIONS:
        assert_same_bits(operators.silu_and_mul(half(f"{name}.in0"), isa=isa), half(f"{name}.out0"))


def test_silu_matches_the_independent_version_for_every_gate() -> None:
    gate = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    gate = gate[np.isfinite(gate)].reshape(1, -1)
    x = np.concatenate([gate, np.full_like(gate, 0.75)], axis=1)
    assert_same_bits(operators.silu_and_mul(x), reference.silu_and_mul(x))


def test_silu_by_a_reciprocal_differs() -> None:
    wrong = sum(
        differing(reference.silu_and_mul(half(f"{name}.in0"), reciprocal=True), half(f"{name}.out0"))
        for name in ACTIVATIONS
    )
    assert wrong > 0


def logprobs_wrong(logprobs: np.ndarray, variant: str, row: int) -> int:
    ids = recorded()[f"{variant}/logprob_ids{row}"]
    return int((logprobs[0, ids].view(np.uint32) != recorded()[f"{variant}/logprob_bits{row}"]).sum())


@pytest.mark.parametrize("isa", ISAS)
def test_log_softmax_and_top_k_match_the_recording(isa: str) -> None:
    for variant in VARIANTS:
        for row in range(3):
            logits = half(f"{variant}/logits{row}")[None]
            logprobs = operators.log_softmax(logits, isa=isa)
            assert logprobs_wrong(logprobs, variant, row) == 0
            ids, values = operators.top_k(logprobs, 20)
            assert set(ids[0].tolist()) <= set(recorded()[f"{variant}/logprob_ids{row}"].tolist())
            assert differing(values[0], logprobs[0, ids[0]]) == 0


@pytest.mark.parametrize("change", [{"threads": 512}, {"exact_exp": True}], ids=str)
def test_other_log_softmaxes_differ(change: dict[str, object]) -> None:
    wrong = right = 0
    for variant in VARIANTS:
        for row in range(3):
            logits = half(f"{variant}/logits{row}")[None]
            right += logprobs_wrong(reference.log_softmax(logits), variant, row)
            wrong += logprobs_wrong(reference.log_softmax(logits, **change), variant, row)  # type: ignore[arg-type]
    assert right == 0
    assert wrong > 0


@pytest.mark.parametrize("columns", [8192, 49152, 151936, 128256])
def test_log_softmax_matches_the_independent_version(columns: int) -> None:
    logits = (np.random.default_rng(columns).standard_normal((3, columns)) * 6).astype(np.float16)
    assert_same_bits(operators.log_softmax(logits), reference.log_softmax(logits))


def test_top_k_breaks_ties_by_id() -> None:
    rng = np.random.default_rng(1)
    logprobs = rng.integers(-6, 0, (30, 500)).astype(np.float32)
    ids, values = operators.top_k(logprobs, 40)
    order = np.lexsort((np.broadcast_to(np.arange(500), logprobs.shape), -logprobs), axis=1)[:, :40]
    np.testing.assert_array_equal(ids, order)
    np.testing.assert_array_equal(values, np.take_along_axis(logprobs, order, axis=1))
    all_ids, _ = operators.top_k(logprobs[:, :40].copy(), 40)
    assert sorted(all_ids[0].tolist()) == list(range(40))
