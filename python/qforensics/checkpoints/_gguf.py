"""GGUF checkpoints of Llama, Qwen2 and Qwen3: Q4_0, Q4_1, Q8_0, F16, BF16 and F32.

Blocks of 32 along K: Q4_0 = (q - 8) d, Q4_1 = q d + m, Q8_0 = q d, d and m float16; the low nibbles of a 4-bit block
are its first 16 values. llama.cpp stores the rotary pairs of Llama's q and k rows interleaved; they are put back
into halves here, as Hugging Face has them.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import ml_dtypes
import numpy as np
import numpy.typing as npt
from gguf.constants import GGMLQuantizationType as GgmlType

from qforensics.checkpoints._base import Checkpoint
from qforensics.checkpoints._config import ModelConfig
from qforensics.checkpoints._errors import CheckpointError, mismatch
from qforensics.checkpoints._gguf_header import GgufHeader, GgufTensor, read_header
from qforensics.checkpoints._types import Array, DenseLinear, QuantizedLinear

__all__ = ["GgufFile"]

T = TypeVar("T", bound=np.generic)

_DENSE: Mapping[GgmlType, np.dtype[np.generic]] = MappingProxyType(
    {
        GgmlType.F32: np.dtype(np.float32),
        GgmlType.F16: np.dtype(np.float16),
        GgmlType.BF16: np.dtype(ml_dtypes.bfloat16),
    }
)
_BLOCKS = (GgmlType.Q4_0, GgmlType.Q4_1, GgmlType.Q8_0)
_BLOCK = 32

_LAYER_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
}  # fmt: skip
_TOP_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def _stored_name(canonical: str) -> str:
    """Hugging Face name with .weight or .bias -> GGUF name."""
    module, _, kind = canonical.rpartition(".")
    if module in _TOP_NAMES:
        return f"{_TOP_NAMES[module]}.{kind}"
    _, _, layer, part = module.split(".", 3)
    return f"blk.{layer}.{_LAYER_NAMES[part]}.{kind}"


def _config(header: GgufHeader) -> ModelConfig:
    """Model configuration from the header's fields."""
    arch = header.require("general.architecture", str)
    if arch not in ("llama", "qwen2", "qwen3"):
        raise mismatch(header.path, "general.architecture", expected="llama, qwen2 or qwen3", found=repr(arch))
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise mismatch(header.path, "token_embd.weight", expected="a [vocabulary, hidden] tensor", found=embedding)
    scaling = header.fields.get(f"{arch}.rope.scaling.type", "none")
    if scaling != "none" or "rope_freqs.weight" in header.tensors:
        raise mismatch(header.path, "rope scaling", expected="none (its parameters are not in the file)", found=scaling)

    if header.fields.get(f"{arch}.expert_count", 0) not in (0, None):
        count = header.fields[f"{arch}.expert_count"]
        raise mismatch(header.path, f"{arch}.expert_count", expected="0 (no experts)", found=count)

    def integer(key: str) -> object:
        return header.fields.get(f"{arch}.{key}")

    heads = integer("attention.head_count")
    data = {
        "model_type": arch,
        "hidden_size": integer("embedding_length"),
        "intermediate_size": integer("feed_forward_length"),
        "num_hidden_layers": integer("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": header.fields.get(f"{arch}.attention.head_count_kv", heads),
        "head_dim": header.fields.get(f"{arch}.attention.key_length", integer("rope.dimension_count")),
        "vocab_size": embedding.shape[0],
        "rms_norm_eps": _short(header.require(f"{arch}.attention.layer_norm_rms_epsilon", float)),
        "rope_theta": _short(header.require(f"{arch}.rope.freq_base", float))
        if integer("rope.freq_base") is not None
        else None,
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "max_position_embeddings": integer("context_length"),
    }
    return ModelConfig.from_hf(data, header.path)


def _short(value: float) -> float:
    """The decimal number that a float32 field was written from (1e-5, not 9.999999747378752e-06)."""
    return float(str(np.float32(value)))


class GgufFile(Checkpoint):
    """Reader of one GGUF file.

    Parameters
    ----------
    path
        The .gguf file.

    Raises
    ------
    CheckpointError
        See `read_header`; an unsupported architecture, tensor type or rope scaling; missing tensors.

    Notes
    -----
    Quantized layers have groups of 32. `tensor` returns float32 for a quantized embedding (exact for Q8_0 and Q4_0).
    """

    format = "gguf"

    def __init__(self, path: Path) -> None:
        self.header = read_header(path)
        config = _config(self.header)
        types = {t.type.name for t in self.header.tensors.values()}
        super().__init__(path, config, {"method": "gguf", "group_size": _BLOCK, "types": sorted(types)})

    def _find(self, canonical: str, shape: tuple[int, ...]) -> GgufTensor:
        name = _stored_name(canonical)
        info = self.header.tensors.get(name)
        if info is None:
            raise mismatch(self.path, name, expected="a tensor", found="none of that name")
        if info.shape != shape:
            raise mismatch(self.path, name, expected=f"shape {list(shape)}", found=list(info.shape))
        if info.type not in _DENSE and info.type not in _BLOCKS:
            raise mismatch(self.path, name, expected="F32, F16, BF16, Q4_0, Q4_1 or Q8_0", found=info.type.name)
        return info

    def _stored_names(self) -> Iterable[str]:
        return self.header.tensors

    def _check_tensor(self, name: str, shape: tuple[int, ...]) -> None:
        info = self._find(name, shape)
        if len(shape) == 1 and info.type not in _DENSE:
            raise mismatch(self.path, info.name, expected="F32, F16 or BF16", found=info.type.name)

    def _check_linear(self, name: str, n: int, k: int) -> None:
        self._find(name + ".weight", (n, k))

    def _bytes(self, info: GgufTensor) -> npt.NDArray[np.uint8]:
        with open(self.path, "rb") as stream:
            stream.seek(info.offset)
            data = np.fromfile(stream, np.uint8, info.size)
        if data.size != info.size:
            raise CheckpointError(f"{self.path}: {info.name}: changed since it was opened: truncated")
        return data

    def _read_tensor(self, name: str) -> Array:
        shape = self._tensor_shapes[name]
        info = self._find(name, shape)
        if info.type in _DENSE:
            return self._restore_rows(name, self._bytes(info).view(_DENSE[info.type]).reshape(shape))
        return self._quantized(info, None).dequantize()

    def _read_linear(self, name: str, n: int, k: int) -> QuantizedLinear | DenseLinear:
        info = self._find(name + ".weight", (n, k))
        has_bias = name + ".bias" in self._tensor_shapes
        bias = self._read_tensor(name + ".bias") if has_bias else None
        if info.type not in _DENSE:
            return self._quantized(info, bias, name)
        return DenseLinear(self._restore_rows(name, self._bytes(info).view(_DENSE[info.type]).reshape(n, k)), bias)

    def _read_tied(self) -> QuantizedLinear | DenseLinear:
        info = self.header.tensors["token_embd.weight"]
        return super()._read_tied() if info.type in _DENSE else self._quantized(info, None)

    def _quantized(self, info: GgufTensor, bias: Array | None, name: str = "") -> QuantizedLinear:
        n, k = info.shape
        blocks = self._bytes(info).reshape(n, k // _BLOCK, -1)
        head = 4 if info.type is GgmlType.Q4_1 else 2
        constants = np.ascontiguousarray(blocks[..., :head]).view(np.float16)
        body = blocks[..., head:]
        bits = 8 if info.type is GgmlType.Q8_0 else 4
        codes = body ^ np.uint8(128) if bits == 8 else np.concatenate([body & 15, body >> 4], axis=-1)
        zero = {GgmlType.Q4_0: 8, GgmlType.Q4_1: 0, GgmlType.Q8_0: 128}[info.type]
        offsets = self._columns(name, constants[..., 1]).astype(np.float32) if info.type is GgmlType.Q4_1 else None
        return QuantizedLinear(
            self._columns(name, codes.reshape(n, k)),
            np.full((k // _BLOCK, n), zero, np.uint8),
            self._columns(name, constants[..., 0]),
            group_size=_BLOCK,
            offsets=offsets,
            bias=bias,
            bits=bits,
        )

    def _columns(self, name: str, rows: npt.NDArray[T]) -> npt.NDArray[T]:
        return np.ascontiguousarray(self._restore_rows(name, rows).T)

    def _restore_rows(self, name: str, rows: npt.NDArray[T]) -> npt.NDArray[T]:
        """Rows of Llama's q and k from interleaved rotary pairs to halves; others as they are."""
        part = name.removesuffix(".bias").rpartition(".")[2]
        if self.config.architecture != "llama" or part not in ("q_proj", "k_proj"):
            return rows
        pairs = rows.reshape(-1, self.config.head_dim // 2, 2, *rows.shape[1:])
        return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)

    @property
    def bytes_on_disk(self) -> int:
        """Size of the file in bytes."""
        return self.path.stat().st_size

    def _weight_files(self) -> Iterable[Path]:
        return [self.path]

    def _read_digest(self) -> str:
        """SHA-256 (hex) over the stored tensors by name: name, type and shape as text, then the bytes."""
        total = hashlib.sha256()
        for name, info in sorted(self.header.tensors.items()):
            total.update(f"{name} {info.type.name} {list(info.shape)}\n".encode())
            total.update(self._bytes(info).data)
        return total.hexdigest()
