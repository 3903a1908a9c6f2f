"""From a checkpoint to the engine's weights, one layer at a time so that peak memory stays near the packed weights."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qforensics import _core
from qforensics._memory import release_unused
from qforensics.checkpoints import Checkpoint, CheckpointError, DenseLinear, QuantizedLinear
from qforensics.checkpoints._errors import mismatch

__all__ = ["assemble", "stored"]

Progress = Callable[[int, int], None]
_OUTPUTS = 512
EIGHT_BIT_HEAD = "lm_head and embedding: 8-bit weights rounded to fp16 (order and rounding named by us)"
_MERGED = {  # vLLM merges these: the kernels see the sum of their columns
    "qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o_proj": ("self_attn.o_proj",),
    "gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "down_proj": ("mlp.down_proj",),
}

_NORMS = {
    "input_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm",
    "q_norm": "self_attn.q_norm", "k_norm": "self_attn.k_norm",
}  # fmt: skip


def stored(array: np.ndarray, dtype: str) -> np.ndarray:
    """An array in the engine's storage: float32, or the bits of a 16-bit float, rounded to nearest as vLLM loads it.

    Raises
    ------
    ValueError
        A finite value becomes infinite.
    """
    import ml_dtypes

    if dtype == "float32":
        return np.ascontiguousarray(array, np.float32)
    wanted = np.dtype(np.float16 if dtype == "float16" else ml_dtypes.bfloat16)
    if array.dtype == wanted:
        return np.ascontiguousarray(array).view(np.uint16)
    with np.errstate(over="ignore"):
        rounded = np.ascontiguousarray(array.astype(wanted))
    if np.isinf(rounded).any() and not np.isinf(array).any():
        raise ValueError(f"expected values that {dtype} can hold, found {float(np.abs(array).max()):g}")
    return rounded.view(np.uint16)


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


def _pack_dense(weight: np.ndarray, dtype: str) -> Any:
    """Numbers as `dtype` activations meet them: rounded to it, or, where it is float32, in their own format."""
    own = weight.dtype.name if dtype == "float32" else dtype
    if own == "float32":
        return _core.pack_dense(np.ascontiguousarray(weight, np.float32))
    return _core.pack_dense(stored(weight, own), "bf16" if own == "bfloat16" else "fp16")


def _pack_codes(linear: QuantizedLinear) -> Any:
    if linear.bits != 4:
        raise ValueError(f"the kernels take 4-bit codes, found {linear.bits}-bit ones")
    scales = np.ascontiguousarray(linear.scales)
    return _core.pack_codes(
        np.ascontiguousarray(linear.codes),
        np.ascontiguousarray(linear.zeros),
        scales.view(np.uint16),
        "bf16" if scales.dtype.name == "bfloat16" else "fp16",
        linear.group_size,
        linear.offsets,
        linear.group_index,
    )


@dataclass(frozen=True)
class _Part:
    """What a call of the engine's `setter` takes beside the layer, and where it came from."""

    setter: str
    name: str
    source: str
    value: tuple[Any, ...]


@dataclass(frozen=True)
class _Assembly:
    """Where weights come from, where they go, and how they are stored there."""

    engine: Any
    checkpoint: Checkpoint
    kernel: Callable[[tuple[int, int, int]], str]
    dense_kernel: str
    dtype: str
    dequantize: bool

    def read(self, name: str) -> QuantizedLinear | DenseLinear:
        linear = _without_stray_bias(self.checkpoint, name)
        plain = self.dequantize and isinstance(linear, QuantizedLinear)
        return DenseLinear(linear.dequantize(), linear.bias) if plain else linear

    def read_tensor(self, name: str, source: str) -> _Part:
        with self.named(source):
            return _Part("set_tensor", name, source, (stored(self.checkpoint.tensor(source), self.dtype),))

    def set_part(self, layer: int, part: _Part) -> None:
        with self.named(part.source):
            getattr(self.engine, part.setter)(part.name, layer, *part.value)

    def packed(self, linear: QuantizedLinear | DenseLinear) -> tuple[Any, ...]:
        """Kernel, options, packed weight and bias, as the engine takes them. The source may then be let go."""
        options = _core.KernelOptions()
        options.split = 0  # what the recordings show
        bias = None if linear.bias is None else stored(linear.bias, self.dtype)
        if isinstance(linear, DenseLinear):
            options.transposed = True  # a linear layer's weight lies as [N, K]
            return self.dense_kernel, options, _pack_dense(linear.weight, self.dtype), bias
        options.symmetric = self.checkpoint.quantization.get("sym") is True
        options.offsets = linear.offsets is not None
        k, n = linear.codes.shape
        return self.kernel((n, k, linear.group_size)), options, _pack_codes(linear), bias

    def head(self) -> tuple[_Part, bool, tuple[str, ...]]:
        """The lm_head, whether rows of the embedding come from its panels, and what no recording confirms about it."""
        head, notes = _head(self.read("lm_head"))
        tied = self.checkpoint.config.tie_embeddings and isinstance(head, DenseLinear)
        release_unused()  # what dequantizing left
        with self.named("lm_head"):
            packed = self.packed(head)
            del head  # the largest array of the load; the engine's copy is the next one
        return _Part("set_linear", "lm_head", "lm_head", packed), tied, notes

    def embedding(self) -> _Part:
        return self.read_tensor("embedding", "model.embed_tokens.weight")

    def layer_parts(self, layer: int) -> Iterator[_Part]:
        prefix = f"model.layers.{layer}."
        for name, parts in _MERGED.items():
            source = prefix + " and ".join(parts)
            with self.named(source):
                value = self.packed(_merge([self.read(prefix + part) for part in parts]))
            yield _Part("set_linear", name, source, value)
            del value  # the engine has taken it
        for name, end in _NORMS.items():
            if self.checkpoint.config.qk_norm or name not in ("q_norm", "k_norm"):
                yield self.read_tensor(name, f"{prefix}{end}.weight")

    def layers(self, count: int, ahead: int, pool: ThreadPoolExecutor | None) -> Iterator[Iterable[_Part]]:
        """Parts of every layer in order: `ahead` layers are in work at a time, or, without a pool, a part at a time."""
        if pool is None:
            yield from (self.layer_parts(layer) for layer in range(count))
            return
        queue: deque[Future[list[_Part]]] = deque()
        for layer in range(count + ahead):
            if layer < count:
                queue.append(pool.submit(list, self.layer_parts(layer)))
            if layer >= ahead:
                yield queue.popleft().result()

    @contextmanager
    def named(self, name: str) -> Iterator[None]:
        """Give a value's error the place it came from."""
        try:
            yield
        except CheckpointError:
            raise
        except ValueError as error:
            raise CheckpointError(f"{self.checkpoint.path}: {name}: {error}") from None


def assemble(
    engine: Any,
    checkpoint: Checkpoint,
    *,
    kernel: Callable[[tuple[int, int, int]], str],
    dense_kernel: str,
    dtype: str,
    dequantize: bool = False,
    ahead: int = 0,
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
    dequantize
        Whether quantized layers become dense ones (GGUF, which runs as fp16).
    ahead
        Layers that are read side by side, beside the lm_head and the embedding; 0: one part at a time, in least memory.

    Raises
    ------
    CheckpointError
        A weight that `dtype` cannot hold, layers that cannot be merged; see also `Checkpoint.linear`.
    """
    assembly = _Assembly(engine, checkpoint, kernel, dense_kernel, dtype, dequantize)
    layers = checkpoint.config.num_layers
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(max_workers=ahead + 2)) if ahead else None
        later_head = pool.submit(assembly.head) if pool else None
        later_table = pool.submit(assembly.embedding) if pool and not checkpoint.config.tie_embeddings else None
        if later_head is None:
            part, tied, notes = assembly.head()  # the largest first, while nothing else is held
            assembly.set_part(-1, part)
        for layer, parts in enumerate(assembly.layers(layers, min(ahead, layers), pool)):
            for part in parts:
                assembly.set_part(layer, part)
            if progress:
                progress(layer + 1, layers + 1)
        if later_head is not None:
            part, tied, notes = later_head.result()
            assembly.set_part(-1, part)
        assembly.set_part(-1, assembly.read_tensor("final_norm", "model.norm.weight"))
        if not tied:
            assembly.set_part(-1, later_table.result() if later_table else assembly.embedding())
    if progress:
        progress(layers + 1, layers + 1)
    return notes


def _without_stray_bias(checkpoint: Checkpoint, name: str) -> QuantizedLinear | DenseLinear:
    """A linear layer with the bias its architecture has: engines skip stored zeros (GPTQ tools write them); more is
    refused."""
    linear = checkpoint.linear(name)
    if linear.bias is None or name + ".bias" in checkpoint.names:
        return linear
    if np.any(linear.bias):
        raise mismatch(
            checkpoint.path,
            name + ".bias",
            expected=f"none in {checkpoint.config.architecture}",
            found="one that is not zero",
        )
    return replace(linear, bias=None)


def _head(head: QuantizedLinear | DenseLinear) -> tuple[QuantizedLinear | DenseLinear, tuple[str, ...]]:
    """The output layer, dense where it holds 8-bit codes (OpenVINO's), which no kernel of ours takes."""
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
