"""Small checkpoints on disk for the tests, and a plain-loop reader of packed words."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from qforensics.checkpoints import CheckpointError, ModelConfig, QuantizedLinear, load
from qforensics.quantize import METHODS

CONFIG = ModelConfig(
    architecture="llama", hidden_size=128, intermediate_size=256, num_layers=1, num_heads=4, num_kv_heads=2,
    head_dim=32, vocab_size=64, rms_norm_eps=1e-5, rope_theta=10000.0, tie_embeddings=True, max_positions=64,
)  # fmt: skip
Q_PROJ = "model.layers.0.self_attn.q_proj"
GROUP = 32


def dense_tensors(config: ModelConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Random float16 tensors of a dense checkpoint."""
    random = np.random.default_rng(seed)
    tensors = {name: random.normal(0, 0.5, shape).astype(np.float16) for name, shape in config.tensor_shapes()}
    for name, shape in config.linear_shapes():
        if name != "lm_head" or not config.tie_embeddings:
            tensors[name + ".weight"] = random.normal(0, 0.1, shape).astype(np.float16)
    return tensors


def write_directory(
    path: Path, config: ModelConfig, tensors: Mapping[str, np.ndarray], quantization: Any = None, metadata: Any = None
) -> Path:
    """config.json and model.safetensors, by the safetensors package."""
    path.mkdir(exist_ok=True)
    data = config.to_hf()
    if quantization is not None:
        data["quantization_config"] = quantization
    (path / "config.json").write_text(json.dumps(data))
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path / "model.safetensors", metadata)
    return path


def quantized_tensors(
    config: ModelConfig, method: str, pack: Any, group: int = GROUP, seed: int = 0
) -> dict[str, np.ndarray]:
    """Tensors of a packed checkpoint: every layer but lm_head through `pack`."""
    result = {}
    for name, array in dense_tensors(config, seed).items():
        if name.endswith("_proj.weight"):
            layer = METHODS[method](array, group)
            result |= {f"{name.removesuffix('weight')}{part}": value for part, value in pack(layer).items()}
        else:
            result[name] = array
    return result


def random_layer(k: int, n: int, group: int, *, bits: int = 4, seed: int = 0, **options: Any) -> QuantizedLinear:
    """Random codes, zeros (1 and above, so that GPTQ v1 can hold them) and scales."""
    random = np.random.default_rng(seed)
    groups = 1 if group == -1 else k // group
    codes = random.integers(0, 1 << bits, (k, n), dtype=np.uint8)
    zeros = options.pop("zeros", None)
    if zeros is None:
        zeros = random.integers(1, 1 << bits, (groups, n), dtype=np.uint8)
    scales = random.uniform(0.001, 0.1, (groups, n)).astype(options.pop("scale_dtype", np.float16))
    return QuantizedLinear(codes, zeros, scales, group_size=group, bits=bits, **options)


def bfloat16_pairs(groups: int, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random bfloat16 scales, and offsets that bfloat16 can hold, as float32."""
    random = np.random.default_rng(seed)
    scales = random.uniform(0.001, 0.1, (groups, n)).astype(ml_dtypes.bfloat16)
    offsets = random.normal(0, 1, (groups, n)).astype(ml_dtypes.bfloat16).astype(np.float32)
    return scales, offsets


def stream_value(words: list[int], index: int, bits: int) -> int:
    """Value `index` of a little-endian bit stream of 32-bit words."""
    stream = sum((word & 0xFFFFFFFF) << (32 * i) for i, word in enumerate(words))
    return stream >> (index * bits) & ((1 << bits) - 1)


def read_everything(path: Path) -> None:
    """Open a checkpoint and read all of it."""
    checkpoint = load(path)
    for name in checkpoint.names:
        checkpoint.tensor(name)
    for name in checkpoint.linear_names:
        checkpoint.linear(name)


def refused(path: Path, message: str) -> str:
    """The refusal of a checkpoint, which names its path and matches `message`."""
    with pytest.raises(CheckpointError) as caught:
        read_everything(path)
    assert re.search(message, str(caught.value)), str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)
