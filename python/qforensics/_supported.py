"""What the engine can run: a checkpoint's configuration as the engine takes it, or refused with file and field."""

from __future__ import annotations

from typing import Any

from qforensics.checkpoints import Checkpoint
from qforensics.checkpoints._config import LLAMA3_FIELDS
from qforensics.checkpoints._errors import mismatch
from qforensics.variants import Variant

__all__ = ["check_quantization", "engine_config", "llama3_scaling"]

HEAD_SIZES = (64, 128)
MAX_POSITIONS = 1 << 20
"""Rows of the rotary cache, 2 bytes (fp32: 4) times the head size each: what the longest published contexts need."""


def engine_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The sizes that the engine wants.

    Raises
    ------
    CheckpointError
        A head size for which no attention is defined, or more than `MAX_POSITIONS`.
    """
    config = checkpoint.config
    if config.head_dim not in HEAD_SIZES:
        wanted = " or ".join(map(str, HEAD_SIZES))
        raise mismatch(checkpoint.config_file, "head_dim", expected=f"{wanted} (engine)", found=config.head_dim)
    if config.max_positions > MAX_POSITIONS:
        field = "context_length" if checkpoint.format == "gguf" else "max_position_embeddings"
        expected = f"at most {MAX_POSITIONS} (engine)"
        raise mismatch(checkpoint.config_file, field, expected=expected, found=config.max_positions)
    return {
        "layers": config.num_layers,
        "hidden": config.hidden_size,
        "intermediate": config.intermediate_size,
        "heads": config.num_heads,
        "kv_heads": config.num_kv_heads,
        "head_size": config.head_dim,
        "vocabulary": config.vocab_size,
        "rms_epsilon": config.rms_norm_eps,
    }


def llama3_scaling(checkpoint: Checkpoint) -> tuple[float, float, float, int] | None:
    """Factor, low and high frequency factor and original positions of Llama 3's rotary scaling; None without scaling.

    Raises
    ------
    CheckpointError
        Another kind of scaling, or frequency factors that are not in order.
    """
    scaling, file = checkpoint.config.rope_scaling, checkpoint.config_file
    if not scaling:
        return None
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind != "llama3":
        raise mismatch(file, "rope_scaling.rope_type", expected="'llama3' or 'default' (engine)", found=repr(kind))
    factor, low, high, original = (float(scaling[key]) for key in LLAMA3_FIELDS)
    if high <= low:
        raise mismatch(file, "rope_scaling.high_freq_factor", expected=f"above low_freq_factor, {low}", found=high)
    return factor, low, high, int(original)


def check_quantization(checkpoint: Checkpoint, variant: Variant) -> None:
    """Refuse checkpoints for which vLLM 0.21 has no such variant.

    Raises
    ------
    CheckpointError
        Zero points where its kernel's only type is uint4b8: gptq_marlin of GPTQ files, gptq of compressed-tensors.
    """
    if checkpoint.quantization.get("sym", True):
        return
    for name, form in (("gptq_marlin", "gptq"), ("gptq", "compressed-tensors")):
        if variant.name == name and checkpoint.format == form:
            field = "quantization_config.sym" if form == "gptq" else "weights.symmetric"
            what = f"true (vLLM 0.21 runs {form} checkpoints with zero points as no {name})"
            raise mismatch(checkpoint.config_file, field, expected=what, found="false")
