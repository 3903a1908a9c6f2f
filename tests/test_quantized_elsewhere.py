"""What other programs make of the checkpoints that `qforensics quantize` writes.

Here: transformers with the compressed-tensors package, and the tensors that vLLM 0.21 allocates. `tests/elsewhere` has
the same comparison for programs too heavy to be pinned (GPTQModel, OpenVINO's runtime); docs/elsewhere.md the results.
"""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM

from family_models import tokens, write_model
from qforensics.checkpoints import Checkpoint, load
from qforensics.quantize import quantize_checkpoint

SHAPE = {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 512}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A Qwen2: biases beside packed weights, a tied head that stays dense."""
    path = tmp_path_factory.mktemp("source") / "qwen2"
    write_model(path, "qwen2", torch.float16, **SHAPE)
    return path


def differing(model: torch.nn.Module, checkpoint: Checkpoint) -> int:
    """Weights of all packed layers whose float16 bits differ from ours."""
    total = 0
    for name in checkpoint.linear_names[:-1]:
        theirs = model.get_submodule(name).weight.detach().numpy()
        ours = checkpoint.linear(name).dequantize().astype(np.float16)
        assert theirs.dtype == np.float16
        assert theirs.shape == ours.shape
        total += int((theirs.view(np.uint16) != ours.view(np.uint16)).sum())
    return total


def decompressed(path) -> torch.nn.Module:
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float16)
    with torch.inference_mode():
        model(torch.tensor([tokens(model.config.vocab_size, 8)]))  # the first forward decompresses
    return model


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("group", [128, 32, -1])
def test_compressed_tensors_decompresses_to_our_weights(tmp_path, source, group):
    ours = quantize_checkpoint(source, tmp_path / "made", method="compressed-tensors", group_size=group)
    model = decompressed(tmp_path / "made")
    assert differing(model, ours) == 0
    bias = model.get_submodule("model.layers.1.self_attn.v_proj").bias.detach().numpy()
    assert bias.tobytes() == ours.linear("model.layers.1.self_attn.v_proj").bias.tobytes()
    tensors = load_file(tmp_path / "made" / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight_packed"][0, 0] ^= 1  # the control: one code moved by one
    save_file(tensors, tmp_path / "made" / "model.safetensors", {"format": "pt"})
    assert differing(model, load(tmp_path / "made")) == 1


#: Parameters that vLLM 0.21 allocates for a layer of K inputs and N outputs in groups of G: its auto_awq, auto_gptq and
#: compressed_tensors_wNa16 sources. K and N as torch.nn.Linear's in_features and out_features.
VLLM_PARAMETERS = {
    "awq": lambda k, n, g: {"qweight": ("I32", [k, n // 8]), "qzeros": ("I32", [k // g, n // 8]),
                            "scales": ("F16", [k // g, n])},
    "gptq": lambda k, n, g: {"qweight": ("I32", [k // 8, n]), "qzeros": ("I32", [k // g, n // 8]),
                             "scales": ("F16", [k // g, n]), "g_idx": ("I32", [k])},
    "compressed-tensors": lambda k, n, g: {"weight_packed": ("I32", [n, k // 8]), "weight_scale": ("F16", [n, k // g]),
                                           "weight_shape": ("I64", [2])},
}  # fmt: skip
#: Keys without which vLLM's from_config raises.
VLLM_KEYS = {
    "awq": {"quant_method", "bits", "group_size", "zero_point"},
    "gptq": {"quant_method", "bits", "group_size", "desc_act", "sym"},
    "compressed-tensors": {"quant_method", "format", "config_groups", "ignore"},
}


@pytest.mark.parametrize("method", VLLM_PARAMETERS)
def test_names_dtypes_and_shapes_are_vllms(tmp_path, source, method):
    checkpoint = quantize_checkpoint(source, tmp_path / "made", method=method, group_size=64)
    settings = json.loads((tmp_path / "made" / "config.json").read_text())["quantization_config"]
    assert VLLM_KEYS[method] <= set(settings)
    shapes = dict(checkpoint.config.linear_shapes())
    with safe_open(tmp_path / "made" / "model.safetensors", "np") as file:
        stored = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no dictionary)
    for name in checkpoint.linear_names[:-1]:
        n, k = shapes[name]
        found = {
            key.removeprefix(name + "."): (part.get_dtype(), list(part.get_shape()))
            for key, part in stored.items()
            if key.startswith(name + ".") and not key.endswith(".bias")
        }
        assert found == VLLM_PARAMETERS[method](k, n, 64), name
