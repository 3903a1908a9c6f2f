"""From a checkpoint to the engine's weights, one layer at a time so that peak memory stays near the packed weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qforensics import _core
from qforensics.checkpoints import Checkpoint, DenseLinear, ModelConfig, QuantizedLinear

__all__ = ["assemble", "engine_config", "stored"]

Progress = Callable[[int, int], None]
_OUTPUTS = 4096
EIGHT_BIT_HEAD = "lm_head and embedding: 8-bit weights rounded to fp16 (order and rounding named by us)"
_MERGED = {  # vLLM merges these: the kernels see the sum of their columns
    "qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o_proj": ("self_attn.o_proj",),
    "gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "down_proj": ("mlp.down_proj",),
}


def engine_config(config: ModelConfig) -> dict[str, Any]:
    """The sizes that the engine wants."""
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


def stored(array: np.ndarray, dtype: str) -> np.ndarray:
    """An array in the engine's storage: float32, or the bits of a 16-bit float (rounded to nearest)."""
    import ml_dtypes

    if dtype == "float32":
        return np.ascontiguousarray(array, np.float32)
    wanted = np.dtype(np.float16 if dtype == "float16" else ml_dtypes.bfloat16)
    return np.ascontiguousarray(array.astype(wanted, copy=False)).view(np.uint16)


def _merge(linears: Sequence[QuantizedLinear | DenseLinear]) -> QuantizedLinear | DenseLinear:
    """Layers side by side along N."""
    first = linears[0]
    if len(linears) == 1:
        return first
    biases = [linear.bias for linear in linears]
    bias = None if any(b is None for b in biases) else np.concatenate([b for b in biases if b is not None])
    if isinstance(first, DenseLinear):
        return DenseLinear(
            np.concatenate([linear.weight for linear in linears if isinstance(linear, DenseLinear)]), bias
        )
    quantized = [linear for linear in linears if isinstance(linear, QuantizedLinear)]
    if len(quantized) != len(linears) or len({q.group_size for q in quantized}) != 1:
        raise ValueError("layers that the engine merges must share a format and a group size")
    index = first.group_index
    for other in quantized[1:]:
        same = other.group_index is index or (
            index is not None and other.group_index is not None and np.array_equal(other.group_index, index)
        )
        if not same:
            raise ValueError("layers that the engine merges must share one activation order")
    offsets = (
        None
        if first.offsets is None
        else np.concatenate([q.offsets for q in quantized if q.offsets is not None], axis=1)
    )
    return QuantizedLinear(
        codes=np.concatenate([q.codes for q in quantized], axis=1),
        zeros=np.concatenate([q.zeros for q in quantized], axis=1),
        scales=np.concatenate([q.scales for q in quantized], axis=1),
        group_size=first.group_size,
        group_index=index,
        offsets=offsets,
        bias=bias,
        bits=first.bits,
    )


def _set_linear(
    engine: Any, name: str, layer: int, kernel: str, linear: QuantizedLinear | DenseLinear, dtype: str
) -> None:
    options = _core.KernelOptions()
    bias = None if linear.bias is None else stored(linear.bias, dtype)
    if isinstance(linear, DenseLinear):
        wide = dtype == "bfloat16" or linear.weight.dtype.name == "bfloat16"
        packed = _core.pack_dense(stored(linear.weight, "bfloat16" if wide else "float16"), "bf16" if wide else "fp16")
        options.transposed = True  # a linear layer's weight lies as [N, K]
        options.split = 0  # cuBLAS chooses
    elif linear.bits == 4:
        scales = np.ascontiguousarray(linear.scales)
        options.symmetric = bool((linear.zeros == 8).all())
        options.offsets = linear.offsets is not None
        packed = _core.pack_codes(
            np.ascontiguousarray(linear.codes),
            np.ascontiguousarray(linear.zeros),
            scales.view(np.uint16),
            "bf16" if scales.dtype.name == "bfloat16" else "fp16",
            linear.group_size,
            linear.offsets,
            linear.group_index,
        )
    else:
        raise ValueError(f"{name} of layer {layer}: the kernels take 4-bit codes, found {linear.bits}-bit ones")
    engine.set_linear(name, layer, kernel, options, packed, bias)


def assemble(
    engine: Any,
    checkpoint: Checkpoint,
    *,
    kernel: Callable[[tuple[int, int, int]], str],
    dense_kernel: str,
    dtype: str,
    progress: Progress | None = None,
) -> tuple[str, ...]:
    """Read every weight of the checkpoint into the engine; returns what no recording confirms about that.

    Parameters
    ----------
    kernel
        From (N, K, group size) of a quantized layer to a name of kernels.def.
    dense_kernel
        A name of kernels.def for dense layers.
    dtype
        Of activations: 'float16', 'bfloat16' or 'float32'.
    """
    config = checkpoint.config
    # the largest first, while nothing else is held: its file pages, its array and its panels exist side by side
    head, notes = _head(checkpoint)
    _set_linear(engine, "lm_head", -1, dense_kernel, head, dtype)
    del head
    for layer in range(config.num_layers):
        prefix = f"model.layers.{layer}."
        for name, parts in _MERGED.items():
            linear = _merge([checkpoint.linear(prefix + part) for part in parts])
            chosen = dense_kernel
            if isinstance(linear, QuantizedLinear):
                k, n = linear.codes.shape
                chosen = kernel((n, k, linear.group_size))
            _set_linear(engine, name, layer, chosen, linear, dtype)
        engine.set_tensor("input_norm", layer, stored(checkpoint.tensor(prefix + "input_layernorm.weight"), dtype))
        engine.set_tensor(
            "post_attention_norm", layer, stored(checkpoint.tensor(prefix + "post_attention_layernorm.weight"), dtype)
        )
        if config.qk_norm:
            engine.set_tensor("q_norm", layer, stored(checkpoint.tensor(prefix + "self_attn.q_norm.weight"), dtype))
            engine.set_tensor("k_norm", layer, stored(checkpoint.tensor(prefix + "self_attn.k_norm.weight"), dtype))
        if progress:
            progress(layer + 1, config.num_layers + 1)
    engine.set_tensor("final_norm", -1, stored(checkpoint.tensor("model.norm.weight"), dtype))
    if not config.tie_embeddings:
        engine.set_tensor("embedding", -1, stored(checkpoint.tensor("model.embed_tokens.weight"), dtype))
    if progress:
        progress(config.num_layers + 1, config.num_layers + 1)
    return notes


def _head(checkpoint: Checkpoint) -> tuple[QuantizedLinear | DenseLinear, tuple[str, ...]]:
    """The output layer, dense where it holds 8-bit codes (OpenVINO's), which no kernel of ours takes."""
    head = checkpoint.linear("lm_head")
    if isinstance(head, DenseLinear) or head.bits == 4:
        return head, ()
    return DenseLinear(_half_numbers(head), head.bias), (EIGHT_BIT_HEAD,)


def _half_numbers(linear: QuantizedLinear) -> np.ndarray:
    """The weight [N, K] as float16, by blocks of outputs: whole, its float32 form is the largest array of the load."""
    weight = np.empty((linear.out_features, linear.in_features), np.float16)
    for first in range(0, linear.out_features, _OUTPUTS):
        block = slice(first, first + _OUTPUTS)
        weight[block] = linear.outputs(block).dequantize()
    return weight
