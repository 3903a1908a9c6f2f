"""What the engine does not compute is refused as the model is loaded, by the file and its field."""

import dataclasses

import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType as GgmlType

import qforensics as qf
from checkpoint_files import CONFIG, dense_tensors, write_directory
from family_models import change_config
from qforensics.checkpoints import CheckpointError
from test_checkpoints_gguf import write_gguf

RUNNABLE = dataclasses.replace(CONFIG, head_dim=64)
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip


def rope(**fields):
    return {"rope_scaling": LLAMA3 | fields}


REFUSED = [
    ("llama", {"model_type": "mistral"}, "model_type"),
    ("llama", {"model_type": "mixtral"}, "model_type"),
    ("qwen2", {"model_type": "qwen2_moe"}, "model_type"),
    ("qwen3", {"model_type": "qwen3_moe"}, "model_type"),
    ("qwen2", {"use_sliding_window": True}, "use_sliding_window"),
    ("qwen3", {"layer_types": ["sliding_attention"]}, "layer_types"),
    ("qwen3", {"layer_types": "full_attention"}, "layer_types"),
    ("llama", {"attention_bias": True}, "attention_bias"),
    ("qwen3", {"attention_bias": True}, "attention_bias"),
    ("llama", {"mlp_bias": True}, "mlp_bias"),
    ("llama", {"hidden_act": "gelu"}, "hidden_act"),
    ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ("llama", {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
    ("llama", {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, r"rope_parameters\.full_attention"),
    ("llama", {"rope_parameters": LLAMA3, "rope_scaling": {"rope_type": "yarn"}}, "rope_scaling"),
    *[
        ("llama", rope(rope_type=kind), r"rope_scaling\.rope_type")
        for kind in ("linear", "dynamic", "yarn", "longrope")
    ],
    ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, r"rope_scaling\.rope_type"),
    ("llama", rope(factor=None), r"rope_scaling\.factor"),
    ("llama", rope(low_freq_factor="1"), r"rope_scaling\.low_freq_factor"),
    ("llama", rope(high_freq_factor=1.0), r"rope_scaling\.high_freq_factor"),
    ("llama", rope(original_max_position_embeddings=0), r"rope_scaling\.original_max_position_embeddings"),
    ("llama", {"max_position_embeddings": 2**20 + 1}, "max_position_embeddings"),
    ("qwen3", {"max_position_embeddings": 2**31 - 1}, "max_position_embeddings"),
]


def write(path, architecture="llama"):
    config = dataclasses.replace(RUNNABLE, architecture=architecture, attention_bias=architecture == "qwen2")
    return write_directory(path, config, dense_tensors(config))


@pytest.mark.parametrize(("architecture", "fields", "named"), REFUSED)
@pytest.mark.parametrize("profile", ["fp32", "vllm-0.21-eager"])
def test_configurations_that_no_operator_computes(tmp_path, architecture, fields, named, profile):
    path = write(tmp_path / "m", architecture)
    change_config(path, **fields)
    with pytest.raises(CheckpointError, match=rf"config\.json: (rope_parameters\.)?{named}: expected ") as caught:
        qf.load_model(path, variant="fp16", profile=profile)
    assert str(path / "config.json") in str(caught.value)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_the_same_configurations_without_the_change_run(tmp_path, architecture):
    path = write(tmp_path / "m", architecture)
    change_config(path, use_sliding_window=False, sliding_window=4096, layer_types=["full_attention"], **rope())
    assert qf.load_model(path, variant="fp16").generate([1, 2, 3], max_new_tokens=2).decode.rows == 2


def test_values_that_float16_cannot_hold(tmp_path):
    """vLLM would load them as infinity."""
    tensors = {name: array.astype(np.float32) for name, array in dense_tensors(RUNNABLE).items()}
    tensors["model.layers.0.mlp.up_proj.weight"][3, 5] = 7e4
    path = write_directory(tmp_path / "m", RUNNABLE, tensors)
    qf.load_model(path, variant="fp16", profile="fp32")
    with pytest.raises(CheckpointError, match=r"mlp\.up_proj: expected values that float16 can hold, found 70000"):
        qf.load_model(path, variant="fp16")


def test_a_bias_that_the_architecture_does_not_have(tmp_path):
    """Stored zeros, which GPTQ tools write, are skipped as engines skip them; other numbers would change the model."""
    tensors, name = dense_tensors(RUNNABLE), "model.layers.0.self_attn.o_proj.bias"
    plain = qf.load_model(write_directory(tmp_path / "plain", RUNNABLE, tensors), variant="fp16")
    zeros = write_directory(tmp_path / "zeros", RUNNABLE, tensors | {name: np.zeros(128, np.float16)})
    expected = plain.generate([1, 2, 3], max_new_tokens=2).numbers_digest
    assert qf.load_model(zeros, variant="fp16").generate([1, 2, 3], max_new_tokens=2).numbers_digest == expected
    ones = write_directory(tmp_path / "ones", RUNNABLE, tensors | {name: np.ones(128, np.float16)})
    with pytest.raises(CheckpointError, match=rf"ones: {name}: expected none in llama, found one that is not zero"):
        qf.load_model(ones, variant="fp16")


def test_head_sizes_without_attention(tmp_path):
    path = write_directory(tmp_path / "m", CONFIG, dense_tensors(CONFIG))
    with pytest.raises(CheckpointError, match=r"m/config\.json: head_dim: expected 64 or 128 \(engine\), found 32"):
        qf.load_model(path, variant="fp16")


@pytest.mark.parametrize("kind", [GgmlType.Q4_0, GgmlType.Q4_1, GgmlType.Q8_0, GgmlType.F16, GgmlType.F32])
@pytest.mark.parametrize("tied", [True, False])
def test_gguf_runs_as_its_dequantized_weights(tmp_path, kind, tied):
    """As the gguf package dequantizes them: nothing rounded in fp32, rounded to float16 in vLLM's profile."""
    config = dataclasses.replace(RUNNABLE, tie_embeddings=tied)
    values = write_gguf(tmp_path / "m.gguf", config, kind)
    write_directory(tmp_path / "m", config, {name: array.astype(np.float32) for name, array in values.items()})
    for profile in ("fp32", "vllm-0.21-eager"):
        traces = [
            qf.load_model(path, variant="fp16", profile=profile).generate([5, 9, 3, 60], max_new_tokens=4)
            for path in (tmp_path / "m.gguf", tmp_path / "m")
        ]
        assert traces[0].numbers_digest == traces[1].numbers_digest


def test_gguf(tmp_path):
    write_gguf(tmp_path / "e.gguf", RUNNABLE, GgmlType.F16, extra=[("llama.expert_count", 8)])
    with pytest.raises(CheckpointError, match=r"e\.gguf: llama\.expert_count: expected 0 .*, found 8"):
        qf.load_model(tmp_path / "e.gguf", variant="fp16")
    write_gguf(tmp_path / "h.gguf", CONFIG, GgmlType.F16)
    with pytest.raises(CheckpointError, match=r"h\.gguf: head_dim: expected 64 or 128"):
        qf.load_model(tmp_path / "h.gguf", variant="fp16")
    write_gguf(tmp_path / "p.gguf", dataclasses.replace(RUNNABLE, max_positions=1 << 30), GgmlType.F16)
    with pytest.raises(CheckpointError, match=r"p\.gguf: context_length: expected at most 1048576 .*found 1073741824"):
        qf.load_model(tmp_path / "p.gguf", variant="fp16")
