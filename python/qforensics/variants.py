"""Variants: checkpoint format and kernel, by the names their users know."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

__all__ = ["VARIANTS", "Variant", "variant"]


@dataclass(frozen=True)
class Variant:
    """One way to run a model's weights.

    Attributes
    ----------
    name : str
    formats : tuple of str
        Checkpoint formats it loads (`qforensics.checkpoints.Checkpoint.format`).
    form : str
        The prepared form of the embedded default that it runs (`qforensics.prepare.FORMS`).
    dtype : str
        Of activations: 'float16', 'bfloat16' or 'float32'.
    quantization : str or None
        What the engine calls it.
    description : str
    hub_model : str
        The 8B checkpoint of the prior experiment.
    """

    name: str
    formats: tuple[str, ...]
    form: str
    dtype: str
    quantization: str | None
    description: str
    hub_model: str

    def __repr__(self) -> str:
        return f"Variant({self.name}: {self.description})"


_AWQ, _GPTQ = ("awq",), ("gptq", "compressed-tensors")
_HUB = {
    "awq": "Qwen/Qwen3-8B-AWQ",
    "gptq": "JunHowie/Qwen3-8B-GPTQ-Int4",
    "openvino": "OpenVINO/Qwen3-8B-int4-ov",
    "pytorch_int4": "pytorch/Qwen3-8B-INT4",
    "fp16": "Qwen/Qwen3-8B",
}

#        name, checkpoint formats, prepared form, dtype, vLLM's quantization, description
_ROWS = (
    ("fp16", ("hf", "gguf"), "fp16", "float16", None, "fp16 weights with cuBLAS"),
    ("awq", _AWQ, "awq", "float16", "awq", "AWQ INT4 with standard kernel"),
    ("awq_marlin", _AWQ, "awq", "float16", "awq_marlin", "AWQ INT4 with Marlin kernel"),
    ("gptq", _GPTQ, "gptq", "float16", "gptq", "GPTQ INT4 with standard kernel"),
    ("gptq_marlin", _GPTQ, "gptq", "float16", "gptq_marlin", "GPTQ INT4 with Marlin kernel"),
    ("openvino", ("openvino",), "openvino", "float32", None, "OpenVINO INT4"),
    ("pytorch_int4", ("torchao",), "pytorch_int4", "bfloat16", None, "PyTorch INT4"),
)
VARIANTS: dict[str, Variant] = {
    name: Variant(name, formats, form, dtype, quantization, description, _HUB[form])
    for name, formats, form, dtype, quantization, description in _ROWS
}


def variant(name: str) -> Variant:
    """Look a variant up.

    Raises
    ------
    ValueError
        Unknown name; the message lists the close ones.
    """
    try:
        return VARIANTS[name]
    except KeyError:
        close = difflib.get_close_matches(name, VARIANTS) or list(VARIANTS)
        raise ValueError(f"unknown variant {name!r}; did you mean {' or '.join(close)}?") from None
