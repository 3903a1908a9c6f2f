"""Small random models of every family, written by transformers itself; the shapes are odd on purpose."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)  # fmt: skip
from transformers.modeling_utils import PreTrainedModel

import qforensics as qf
from qforensics.checkpoints import Checkpoint

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}

#: fields of a model that every packed format takes
PACKABLE = {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 512}
#: method of `quantize` -> variants of its checkpoints
METHODS = {
    "awq": ("awq", "awq_marlin"), "gptq": ("gptq", "gptq_marlin"), "compressed-tensors": ("gptq_marlin",),
    "pytorch_int4": ("pytorch_int4",),
}  # fmt: skip

LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 96,
}  # fmt: skip

#: name -> configuration class, model class, fields.
FAMILIES = {
    # grouped queries, untied; heads * head_dim is not hidden; K no multiple of 64; vocabulary no multiple of 16
    "llama": (
        LlamaConfig, LlamaForCausalLM,
        {"hidden_size": 232, "intermediate_size": 360, "num_attention_heads": 4, "num_key_value_heads": 2,
         "head_dim": 64, "vocab_size": 1003, "tie_word_embeddings": False, "max_position_embeddings": 251,
         "rms_norm_eps": 1e-5},
    ),
    # scaled frequencies (low, blended and high ones), head size 128, one key-value head, tied
    "llama3": (
        LlamaConfig, LlamaForCausalLM,
        {"hidden_size": 264, "intermediate_size": 320, "num_attention_heads": 3, "num_key_value_heads": 1,
         "head_dim": 128, "vocab_size": 1000, "tie_word_embeddings": True, "max_position_embeddings": 768,
         "rope_parameters": LLAMA3_ROPE, "rms_norm_eps": 1e-5},
    ),
    # biases, no head_dim in the configuration, tied
    "qwen2": (
        Qwen2Config, Qwen2ForCausalLM,
        {"hidden_size": 448, "intermediate_size": 600, "num_attention_heads": 7, "num_key_value_heads": 1,
         "vocab_size": 1009, "tie_word_embeddings": True, "max_position_embeddings": 512, "rms_norm_eps": 1e-6,
         "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
    ),
    # norms of queries and keys, head size 128, untied
    "qwen3": (
        Qwen3Config, Qwen3ForCausalLM,
        {"hidden_size": 280, "intermediate_size": 392, "num_attention_heads": 4, "num_key_value_heads": 2,
         "head_dim": 128, "vocab_size": 1024, "tie_word_embeddings": False, "max_position_embeddings": 512,
         "rms_norm_eps": 1e-6, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
    ),
    # norms of queries and keys, head size 64, tied, as many key-value heads as heads
    "qwen3-tied": (
        Qwen3Config, Qwen3ForCausalLM,
        {"hidden_size": 192, "intermediate_size": 336, "num_attention_heads": 3, "num_key_value_heads": 3,
         "head_dim": 64, "vocab_size": 997, "tie_word_embeddings": True, "max_position_embeddings": 300,
         "rms_norm_eps": 1e-6, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
    ),
}  # fmt: skip


def write_model(path: Path, family: str, dtype: torch.dtype, **changes: object) -> PreTrainedModel:
    """Write a checkpoint and return transformers' model of it, in fp32 with the stored (rounded) weights.

    Norm weights and biases are far from 1 and 0, and the weights large enough that attention and logits are uneven:
    whatever a reader forgets shows.
    """
    config_class, model_class, fields = FAMILIES[family]
    config = config_class(num_hidden_layers=2, attn_implementation="eager", **{**fields, **changes})
    torch.manual_seed(7)
    model = model_class(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("norm.weight"):
                weight.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                weight.normal_(0, 0.5)
            else:
                weight.normal_(0, 1.5 / weight.shape[-1] ** 0.5)
    model.to(dtype).save_pretrained(path)  # rounds the rotary frequencies too: the reference is read back
    return model_class.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()


def tokens(vocabulary: int, count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, vocabulary, count).tolist()


def reference_logprobs(model: PreTrainedModel, ids: list[int]) -> np.ndarray:
    """float64 [len(ids), vocabulary]."""
    with torch.inference_mode():
        return torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), dim=-1).numpy()


def all_logprobs(rows: qf.LogprobRows, vocabulary: int) -> np.ndarray:
    """float32 [rows, vocabulary] of a trace that kept every token's logprob."""
    order = np.argsort(rows.ids.reshape(-1, vocabulary), axis=1)
    assert (np.take_along_axis(rows.ids.reshape(-1, vocabulary), order, 1) == np.arange(vocabulary)).all()
    return np.take_along_axis(rows.logprobs.reshape(-1, vocabulary), order, 1)


def rms(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return float(np.sqrt(np.mean((a.astype(np.float64) - b) ** 2)))


def half_precision_noise(path: Path, ids: list[int], expected: np.ndarray, dtype: torch.dtype) -> float:
    """Rms distance of transformers' own run in `dtype` on this CPU from `expected`: what 16-bit roundings cost."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="eager").eval()
    return rms(reference_logprobs(model, ids), expected)


def write_dequantized(checkpoint: Checkpoint, path: Path, dtype: "np.dtype[np.generic] | type") -> PreTrainedModel:
    """Write what the kernels multiply with as a dense checkpoint, and return transformers' fp32 model of it."""
    tensors = {name: checkpoint.tensor(name) for name in checkpoint.names}
    for name in checkpoint.linear_names:
        if name != "lm_head" or not checkpoint.config.tie_embeddings:
            tensors[name + ".weight"] = checkpoint.linear(name).dequantize().astype(dtype)
    path.mkdir()
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, path / "model.safetensors", {"format": "pt"})
    (path / "config.json").write_text(json.dumps(checkpoint.config.to_hf()))
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()


#: Sizes that every INT4 kernel takes.
PACKABLE = {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 512}
BOUND = 1e-3  # the issue's; measured: below 7e-5 (fp32 rounding of another order of sums)


def whole(trace: qf.Trace, vocabulary: int) -> np.ndarray:
    """All logprobs of all positions [rows, vocabulary] of a trace whose top-k is its vocabulary."""
    return np.concatenate([all_logprobs(rows, vocabulary) for rows in (trace.prefill, trace.decode)])


def ids_of(trace: qf.Trace) -> list[int]:
    """Ids whose successors the trace's rows predict."""
    return [*trace.prompt_ids.tolist(), *trace.generated_ids.tolist()][:-1]


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max())


def change_config(path: Path, **fields: object) -> None:
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
