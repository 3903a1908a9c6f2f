"""RMS norms: recorded bits of a real vLLM, an independent version, and wrong alternatives that must differ."""

import numpy as np
import pytest

import operator_reference as reference
from operator_data import EPSILON, assert_same_bits, calls, differing, half
from qforensics import _core, operators

FUSED = [
    "model.layers.0.post_attention_layernorm",
    "model.layers.29.input_layernorm",
    "model.layers.29.post_attention_layernorm",
    "model.norm",
]
PLAIN = "model.layers.0.input_layernorm"
ISAS = [i for i in ("portable", "avx2", "avx512") if i <= _core.best_isa() or i == "portable"]


def test_rms_norm_matches_the_recording() -> None:
    names = calls(PLAIN)
    assert len(names) == 7
    for name in names:
        found = operators.rms_norm(half(f"{name}.in0"), half(f"weight/{PLAIN}"), epsilon=EPSILON)
        assert_same_bits(found, half(f"{name}.out0"))


@pytest.mark.parametrize("module", FUSED)
def test_fused_add_rms_norm_matches_the_recording(module: str) -> None:
    names = calls(module)
    assert len(names) == 7
    for name in names:
        found, residual = operators.fused_add_rms_norm(
            half(f"{name}.in0"), half(f"{name}.in1"), half(f"weight/{module}"), epsilon=EPSILON
        )
        assert_same_bits(found, half(f"{name}.out0"))
        assert_same_bits(residual, half(f"{name}.out1"))


def sample(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(columns)
    x = (rng.standard_normal((rows, columns)) * rng.choice([1e-3, 1, 30], (rows, 1))).astype(np.float16)
    x += np.float16(0)  # no -0, which the addition of a zero residual would turn into +0
    return x, (1 + rng.standard_normal(columns)).astype(np.float16)


@pytest.mark.parametrize("columns", [64, 128, 576, 768, 2048, 8192])
@pytest.mark.parametrize("isa", ISAS)
def test_norms_match_the_independent_version(columns: int, isa: str) -> None:
    x, weight = sample(40, columns)
    found = operators.rms_norm(x, weight, epsilon=1e-6, isa=isa)
    assert_same_bits(found, reference.rms_norm(x, weight, 1e-6))
    zero = np.zeros_like(x)
    fused, residual = operators.fused_add_rms_norm(x, zero, weight, epsilon=1e-6, isa=isa)
    assert_same_bits(fused, reference.rms_norm(x, weight, 1e-6, fused=True))
    assert differing(residual, x) == 0


def test_rows_of_any_length_stay_close_to_the_definition() -> None:
    for columns in (4, 12, 770):  # not multiples of 8: unconfirmed bits, but the right function
        x, weight = sample(10, columns)
        exact = x.astype(np.float64)
        exact = exact / np.sqrt((exact**2).mean(axis=1, keepdims=True) + 1e-6) * weight.astype(np.float64)
        fused, _ = operators.fused_add_rms_norm(x, np.zeros_like(x), weight, epsilon=1e-6)
        for found in (operators.rms_norm(x, weight, epsilon=1e-6), fused):
            # half a unit of fp16 for the last rounding, and as much again for everything in fp32
            np.testing.assert_allclose(found.astype(np.float64), exact, rtol=2.0**-10, atol=2.0**-24)


def test_head_norm_is_the_norm_of_every_head() -> None:
    x, _ = sample(30, 6 * 128)
    weight = sample(1, 128)[1]
    found = operators.rms_norm(x.reshape(30, 6, 128), weight, epsilon=1e-6)
    expected = operators.rms_norm(np.ascontiguousarray(x.reshape(180, 128)), weight, epsilon=1e-6)
    assert_same_bits(found.reshape(180, 128), expected)


def recorded_norms(**change: object) -> int:
    """Wrong outputs over all recorded norms when one thing of the reference is changed."""
    wrong = 0
    for name in calls(PLAIN):
        found = reference.rms_norm(half(f"{name}.in0"), half(f"weight/{PLAIN}"), EPSILON, **change)  # type: ignore[arg-type]
        wrong += differing(found, half(f"{name}.out0"))
    for module in FUSED:
        for name in calls(module):
            h = (half(f"{name}.in0").astype(np.float32) + half(f"{name}.in1").astype(np.float32)).astype(np.float16)
            found = reference.rms_norm(h, half(f"weight/{module}"), EPSILON, fused=True, **change)  # type: ignore[arg-type]
            wrong += differing(found, half(f"{name}.out0"))
    return wrong


@pytest.mark.parametrize(
    "change", [{"round_before_weight": True}, {"warp_offsets": (16, 8, 4, 2, 1)}, {"exact_rsqrt": True}], ids=str
)
def test_wrong_alternatives_differ(change: dict[str, object]) -> None:
    assert recorded_norms() == 0
    assert recorded_norms(**change) > 0


def test_bf16_rounds_in_the_same_places() -> None:
    import ml_dtypes

    x, weight = (a.astype(ml_dtypes.bfloat16) for a in sample(20, 256))
    exact = x.astype(np.float64)
    exact = exact / np.sqrt((exact**2).mean(axis=1, keepdims=True) + 1e-6) * weight.astype(np.float64)
    found = operators.rms_norm(x, weight, epsilon=1e-6)
    np.testing.assert_allclose(found.astype(np.float64), exact, rtol=2.0**-8)  # bf16 has 8 significant bits
