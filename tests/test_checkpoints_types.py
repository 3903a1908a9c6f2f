"""The common form: what it computes, and what it refuses."""

import dataclasses

import ml_dtypes
import numpy as np
import pytest

from checkpoint_files import CONFIG, bfloat16_pairs, random_layer
from qforensics.checkpoints import CheckpointError, DenseLinear, ModelConfig, QuantizedLinear


def reference_weight(layer: QuantizedLinear) -> np.ndarray:
    """(code - zero) * scale + offset, element by element, in double precision rounded once."""
    k, n = layer.codes.shape
    size = k if layer.group_size == -1 else layer.group_size
    weight = np.empty((n, k), np.float32)
    for row in range(k):
        group = row // size if layer.group_index is None else int(layer.group_index[row])
        for column in range(n):
            difference = int(layer.codes[row, column]) - int(layer.zeros[group, column])
            offset = 0.0 if layer.offsets is None else float(layer.offsets[group, column])
            product = np.float32(difference * float(layer.scales[group, column]))
            weight[column, row] = np.float32(float(product) + offset)
    return weight


@pytest.mark.parametrize("group", [-1, 8, 32])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_dequantize(group, bits):
    layer = random_layer(32, 8, group, bits=bits)
    assert layer.dequantize().tobytes() == reference_weight(layer).tobytes()


def test_dequantize_with_group_index_and_offsets():
    index = np.random.default_rng(1).permutation(np.arange(32, dtype=np.int32) // 8)
    scales, offsets = bfloat16_pairs(4, 8)
    layer = random_layer(32, 8, 8, group_index=index)
    layer = dataclasses.replace(layer, scales=scales, offsets=offsets)
    assert layer.dequantize().tobytes() == reference_weight(layer).tobytes()
    plain = dataclasses.replace(layer, group_index=None)
    assert plain.dequantize().tobytes() == reference_weight(plain).tobytes()
    assert plain.dequantize().tobytes() != layer.dequantize().tobytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes": np.zeros((32, 8), np.int32)}, r"codes: expected uint8 \[32, 8\], found int32"),
        ({"codes": np.full((32, 8), 16, np.uint8)}, "codes: expected values below 16, found 16"),
        ({"codes": np.zeros((0, 8), np.uint8)}, "non-empty"),
        ({"zeros": np.full((4, 8), 200, np.uint8)}, "zeros: expected values below 16, found 200"),
        ({"zeros": np.zeros((3, 8), np.uint8)}, r"zeros: expected uint8 \[4, 8\], found uint8 \[3, 8\]"),
        ({"scales": np.zeros((4, 8), np.float32)}, "scales: expected float16 or bfloat16"),
        ({"scales": np.full((4, 8), np.nan, np.float16)}, "scales: expected finite"),
        ({"scales": np.full((4, 8), np.inf, ml_dtypes.bfloat16)}, "scales: expected finite"),
        ({"offsets": np.full((4, 8), np.inf, np.float32)}, "offsets: expected finite"),
        ({"offsets": np.zeros((4, 8), np.float64)}, "offsets: expected float32"),
        ({"bias": np.zeros(7, np.float16)}, r"bias: expected .*\[8\], found float16 \[7\]"),
        ({"group_size": 5}, "group size: expected -1 or a divisor of K = 32, found 5"),
        ({"group_size": 0}, "group size"),
        ({"bits": 5}, "bits: expected 2, 3, 4 or 8, found 5"),
        ({"group_index": np.arange(32, dtype=np.int32)}, r"expected values in 0..3, found 0..31"),
        ({"group_index": np.full(32, -1, np.int32)}, r"expected values in 0..3, found -1..-1"),
        ({"group_index": np.zeros(32, np.int32)}, "expected 8 rows in every group, found 32 in group 0"),
        ({"group_index": np.zeros(32, np.int64)}, "group index: expected int32"),
    ],
)
def test_quantized_linear_refuses(change, message):
    layer = random_layer(32, 8, 8)
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(layer, **change)


def test_dense_linear():
    weight = np.arange(6, dtype=np.float16).reshape(2, 3)
    layer = DenseLinear(weight)
    assert (layer.in_features, layer.out_features) == (3, 2)
    assert layer.dequantize().tobytes() == weight.astype(np.float32).tobytes()
    with pytest.raises(ValueError, match="float64"):
        DenseLinear(weight.astype(np.float64))
    with pytest.raises(ValueError, match=r"\[N, K\]"):
        DenseLinear(weight[0])


def test_repr_is_one_line():
    assert repr(random_layer(32, 8, 8)) == "QuantizedLinear(32 -> 8, 4 bit, group 8)"
    assert "\n" not in repr(DenseLinear(np.zeros((2, 3), np.float32)))


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_config_round_trip(architecture):
    config = dataclasses.replace(
        CONFIG,
        architecture=architecture,
        attention_bias=architecture == "qwen2",
        rope_scaling={
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    )
    assert ModelConfig.from_hf(config.to_hf()) == config


def test_config_reads_transformers_5_rope():
    data = CONFIG.to_hf() | {"rope_theta": None, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}
    config = ModelConfig.from_hf(data)
    assert (config.rope_theta, config.rope_scaling) == (5e5, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "model_type: expected llama or qwen2 or qwen3, found 'gpt2'"),
        ({"model_type": None}, "model_type"),
        ({"hidden_size": "128"}, "hidden_size: expected an integer"),
        ({"hidden_size": True}, "hidden_size: expected an integer"),
        ({"hidden_size": 2**40}, "hidden_size: expected an integer in 1..2147483647"),
        ({"num_hidden_layers": 10**9}, r"num_hidden_layers: expected an integer in 1\.\.4096"),
        ({"num_key_value_heads": 3}, "num_key_value_heads: expected a divisor of 4"),
        ({"head_dim": None, "hidden_size": 130}, "hidden_size: expected a multiple of 4"),
        ({"rms_norm_eps": -1}, "rms_norm_eps: expected a positive number"),
        ({"rope_theta": "10000"}, "rope_theta: expected a positive number"),
        ({"rope_scaling": [1]}, "rope_scaling: expected an object"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings: expected true or false"),
        ({"attention_bias": True}, "attention_bias: expected false"),
        ({"mlp_bias": True}, "mlp_bias: expected false"),
        ({"hidden_act": "gelu"}, "hidden_act: expected 'silu'"),
        ({"use_sliding_window": True}, "use_sliding_window: expected false"),
        ({"dtype": "int8"}, "dtype: expected float16"),
    ],
)
def test_config_refuses(change, message):
    with pytest.raises(CheckpointError, match=message):
        ModelConfig.from_hf(CONFIG.to_hf() | change)
