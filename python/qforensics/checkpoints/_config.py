"""The model's shape, read from a Hugging Face ``config.json`` or written as one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qforensics.checkpoints._errors import mismatch
from qforensics.checkpoints._json import choice, flag, integer_field

__all__ = ["LINEARS", "ModelConfig"]

ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
DTYPES = ("float16", "bfloat16", "float32")

#: What rope scaling of type llama3 consists of.
LLAMA3_FIELDS = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")

#: Linear layers of one transformer layer, in the order a forward pass meets them.
LINEARS = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip


@dataclass(frozen=True)
class ModelConfig:
    """Shape and constants of a decoder-only transformer.

    Attributes
    ----------
    architecture : {'llama', 'qwen2', 'qwen3'}
    hidden_size, intermediate_size, num_layers, num_heads, num_kv_heads, head_dim, vocab_size : int
    rms_norm_eps, rope_theta : float
    rope_scaling : dict or None
        As in the checkpoint (``rope_type``, ``factor``, ...); None is plain rotary embedding.
    tie_embeddings : bool
        lm_head is the embedding.
    max_positions : int
    attention_bias : bool
        q, k and v have a bias.
    dtype : {'float16', 'bfloat16', 'float32'}
        Of the activations, as the checkpoint states it.
    """

    architecture: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: Mapping[str, Any] | None = field(default=None, hash=False)
    tie_embeddings: bool = False
    max_positions: int = 2048
    attention_bias: bool = False
    dtype: str = "float16"

    @property
    def qk_norm(self) -> bool:
        """Queries and keys are normalised per head (Qwen3)."""
        return self.architecture == "qwen3"

    def linear_shapes(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Yield every linear layer's canonical name and its (N, K), lm_head last, tied or not."""
        hidden, inner = self.hidden_size, self.intermediate_size
        heads, kv = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        attention = ((heads, hidden), (kv, hidden), (kv, hidden), (hidden, heads))
        shapes = (*attention, (inner, hidden), (inner, hidden), (hidden, inner))
        for layer in range(self.num_layers):
            for name, shape in zip(LINEARS, shapes, strict=True):
                yield f"model.layers.{layer}.{name}", shape
        yield "lm_head", (self.vocab_size, hidden)

    def tensor_shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield the tensors that are no linear layer's weight: embedding, norms, biases, by canonical name."""
        yield "model.embed_tokens.weight", (self.vocab_size, self.hidden_size)
        for layer in range(self.num_layers):
            prefix = f"model.layers.{layer}."
            yield prefix + "input_layernorm.weight", (self.hidden_size,)
            yield prefix + "post_attention_layernorm.weight", (self.hidden_size,)
            for name, heads in (("q", self.num_heads), ("k", self.num_kv_heads), ("v", self.num_kv_heads)):
                if self.qk_norm and name != "v":
                    yield f"{prefix}self_attn.{name}_norm.weight", (self.head_dim,)
                if self.attention_bias:
                    yield f"{prefix}self_attn.{name}_proj.bias", (heads * self.head_dim,)
        yield "model.norm.weight", (self.hidden_size,)

    @classmethod
    def from_hf(cls, data: Mapping[str, Any], file: Path | str = "config.json") -> "ModelConfig":
        """Read the dictionary of a Hugging Face ``config.json`` (transformers 4 and 5 spellings).

        Raises
        ------
        CheckpointError
            An architecture other than the three, or a field that is missing, of the wrong type or out of range.
        """
        architecture = choice(data.get("model_type"), ARCHITECTURES, file, "model_type")
        hidden = integer_field(data, "hidden_size", file)
        heads = integer_field(data, "num_attention_heads", file)
        kv_heads = integer_field(data, "num_key_value_heads", file, default=heads)
        if heads % kv_heads:
            raise mismatch(file, "num_key_value_heads", expected=f"a divisor of {heads} heads", found=kv_heads)
        if data.get("head_dim") is None and hidden % heads:
            raise mismatch(file, "hidden_size", expected=f"a multiple of {heads}, or head_dim given", found=hidden)
        if data.get("use_sliding_window"):
            raise mismatch(file, "use_sliding_window", expected="false", found="true")
        others = sorted({str(kind) for kind in _list(data, "layer_types", file)} - {"full_attention"})
        if others:
            raise mismatch(file, "layer_types", expected="full_attention everywhere", found=others[0])
        if data.get("hidden_act", "silu") != "silu":
            raise mismatch(file, "hidden_act", expected="'silu'", found=repr(data.get("hidden_act")))
        if data.get("mlp_bias"):
            raise mismatch(file, "mlp_bias", expected="false", found="true")
        theta, scaling = _rope(data, file)
        bias = flag(data, "attention_bias", file, default=False)
        if bias and architecture != "qwen2":  # in Llama and Qwen3 the flag would put one on o_proj too
            raise mismatch(file, "attention_bias", expected="false (true is supported in qwen2 only)", found="true")
        return cls(
            architecture=architecture,
            hidden_size=hidden,
            intermediate_size=integer_field(data, "intermediate_size", file),
            num_layers=integer_field(data, "num_hidden_layers", file, high=4096),
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=integer_field(data, "head_dim", file, default=hidden // heads),
            vocab_size=integer_field(data, "vocab_size", file),
            rms_norm_eps=_positive(data, "rms_norm_eps", file, default=1e-6),
            rope_theta=theta,
            rope_scaling=scaling,
            tie_embeddings=flag(data, "tie_word_embeddings", file, default=False),
            max_positions=integer_field(data, "max_position_embeddings", file, default=2048),
            attention_bias=architecture == "qwen2",
            dtype=_dtype(data, file),
        )

    def to_hf(self) -> dict[str, Any]:
        """Return the dictionary of a Hugging Face ``config.json`` that `from_hf` reads back to this."""
        result: dict[str, Any] = {
            "architectures": [ARCHITECTURES[self.architecture]],
            "model_type": self.architecture,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocab_size,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": None if self.rope_scaling is None else dict(self.rope_scaling),
            "tie_word_embeddings": self.tie_embeddings,
            "max_position_embeddings": self.max_positions,
            "hidden_act": "silu",
            "dtype": self.dtype,
        }
        if self.architecture != "qwen2":
            result["attention_bias"] = False
        return result


def _rope(data: Mapping[str, Any], file: Path | str) -> tuple[float, dict[str, Any] | None]:
    """Base and scaling: transformers 5 writes ``rope_parameters``, earlier ones ``rope_theta`` and ``rope_scaling``."""
    newer, older = data.get("rope_parameters"), data.get("rope_scaling")
    for key, value in (("rope_parameters", newer), ("rope_scaling", older)):
        if value is not None and not isinstance(value, dict):
            raise mismatch(file, key, expected="an object or null", found=repr(value))
    if newer and older and newer != {"rope_theta": newer.get("rope_theta"), **older}:
        raise mismatch(file, "rope_scaling", expected="absent, or as rope_parameters says", found=older)
    scaling = {k: v for k, v in (newer or older or {}).items() if k != "rope_theta"}
    for key, value in scaling.items():
        if isinstance(value, dict):
            raise mismatch(file, f"rope_parameters.{key}", expected="one rotary embedding", found="one per layer type")
    for name, place in (("partial_rotary_factor", data), ("rope_parameters.partial_rotary_factor", scaling)):
        if place.get("partial_rotary_factor", 1.0) != 1.0:
            raise mismatch(file, name, expected="1", found=place["partial_rotary_factor"])
    source = newer if newer is not None and "rope_theta" in newer else data
    theta = _positive(source, "rope_theta", file, default=10000.0)
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "llama3":
        for key in LLAMA3_FIELDS:
            _positive(scaling, key, file, inside="rope_scaling.")
    return theta, None if kind == "default" else scaling


def _list(data: Mapping[str, Any], key: str, file: Path | str) -> list[Any]:
    value = data.get(key)
    if value is not None and not isinstance(value, list):
        raise mismatch(file, key, expected="a list or null", found=repr(value))
    return value or []


def _positive(
    data: Mapping[str, Any], key: str, file: Path | str, *, default: float | None = None, inside: str = ""
) -> float:
    value = data.get(key)
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
        raise mismatch(file, inside + key, expected="a positive number", found=repr(value))
    return float(value)


def _dtype(data: Mapping[str, Any], file: Path | str) -> str:
    return choice(data.get("dtype") or data.get("torch_dtype") or "float16", DTYPES, file, "dtype")
