"""What every checkpoint can do, and what is checked of every one."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from qforensics.checkpoints._config import ModelConfig
from qforensics.checkpoints._digests import remembered
from qforensics.checkpoints._errors import CheckpointError, mismatch
from qforensics.checkpoints._types import Array, DenseLinear, QuantizedLinear

__all__ = ["Checkpoint"]

_LAYER = re.compile(r"(?:model\.layers|blk)\.([0-9]{1,9})\.")


class Checkpoint(ABC):
    """Weights on disk, read lazily and one at a time, under Hugging Face names whatever the format.

    Attributes
    ----------
    path : Path
        Directory, or the GGUF file.
    format : str
        ``'awq'``, ``'gptq'``, ``'compressed-tensors'``, ``'torchao'``, ``'openvino'``, ``'gguf'`` or ``'hf'``.
    config : ModelConfig
    quantization : dict
        What the checkpoint says of its quantization: ``method``, ``bits``, ``group_size``, the format's own flags;
        empty for ``'hf'``.
    names : tuple of str
        Tensors that `tensor` reads: embedding, norms, biases.
    linear_names : tuple of str
        Layers that `linear` reads, ``'lm_head'`` last (the embedding where the two are tied).
    revision : str or None
        Commit of the hub repository it came from.

    Raises
    ------
    CheckpointError
        From the constructor when a tensor is missing or of the wrong shape, from `tensor` and `linear` when its values
        contradict the format. `KeyError` for a name that is not in the lists.
    """

    format: str

    def __init__(self, path: Path, config: ModelConfig, quantization: Mapping[str, Any]) -> None:
        self.path = path
        self.config = config
        self.quantization = dict(quantization)
        self.revision: str | None = None
        self._check()  # first: a header that claims more layers than the file holds stops here, before lists are made
        self._linear_shapes = dict(config.linear_shapes())
        self._tensor_shapes = dict(config.tensor_shapes())
        self.linear_names = tuple(self._linear_shapes)
        self.names = tuple(self._tensor_shapes)

    def _check(self) -> None:
        for name, shape in self.config.tensor_shapes():
            self._check_tensor(name, shape)
        for name, (n, k) in self.config.linear_shapes():
            if name != "lm_head" or not self.config.tie_embeddings:
                self._check_linear(name, n, k)
        for stored in self._stored_names():
            match = _LAYER.match(stored)
            if match and int(match[1]) >= self.config.num_layers:
                raise mismatch(self.path, stored, expected=f"layers below {self.config.num_layers}", found=match[1])

    @abstractmethod
    def _stored_names(self) -> Iterable[str]:
        """All tensors of the headers, as the format names them."""

    @abstractmethod
    def _check_tensor(self, name: str, shape: tuple[int, ...]) -> None:
        """Raise unless the headers hold the tensor in that shape and a fitting dtype."""

    @abstractmethod
    def _check_linear(self, name: str, n: int, k: int) -> None:
        """Raise unless the headers hold the layer in that shape and fitting dtypes."""

    @abstractmethod
    def _read_tensor(self, name: str) -> Array:
        """Read a tensor that passed `_check_tensor`."""

    @abstractmethod
    def _read_linear(self, name: str, n: int, k: int) -> QuantizedLinear | DenseLinear:
        """Read a layer that passed `_check_linear`. A plain ValueError is given file and name by the caller."""

    @property
    def config_file(self) -> Path:
        """Where `config` was read."""
        return self.path / "config.json" if self.path.is_dir() else self.path

    @property
    @abstractmethod
    def bytes_on_disk(self) -> int:
        """Size of the weight files in bytes."""

    @abstractmethod
    def _weight_files(self) -> Iterable[Path]:
        """The files that `_read_digest` depends on."""

    @abstractmethod
    def _read_digest(self) -> str:
        """Compute the digest from the files."""

    def digest(self) -> str:
        """SHA-256 (hex) over all stored tensors; for safetensors independent of sharding and order.

        Files that stay as they are are read once per process.
        """
        return remembered(self.format, self._weight_files(), self._read_digest)

    def tensor(self, name: str) -> Array:
        """Read one tensor, float16, bfloat16 or float32 (a quantized embedding comes as exact float32).

        Parameters
        ----------
        name
            One of `names`.
        """
        shape = self._tensor_shapes.get(name)
        if shape is None:
            raise KeyError(f"{self.path}: no tensor {name!r}; see `names`")
        try:
            array = self._read_tensor(name)
        except CheckpointError:
            raise
        except ValueError as error:
            raise CheckpointError(f"{self.path}: {name}: {error}") from None
        if array.shape != shape:
            raise mismatch(self.path, name, expected=f"shape {list(shape)}", found=list(array.shape))
        return array

    def linear(self, name: str) -> QuantizedLinear | DenseLinear:
        """Read one linear layer.

        Parameters
        ----------
        name
            One of `linear_names`, for example ``'model.layers.0.self_attn.q_proj'``.
        """
        if name not in self._linear_shapes:
            raise KeyError(f"{self.path}: no linear layer {name!r}; see `linear_names`")
        n, k = self._linear_shapes[name]
        try:
            tied = name == "lm_head" and self.config.tie_embeddings
            layer = self._read_tied() if tied else self._read_linear(name, n, k)
        except CheckpointError:
            raise
        except ValueError as error:
            raise CheckpointError(f"{self.path}: {name}: {error}") from None
        if (layer.out_features, layer.in_features) != (n, k):
            found = [layer.out_features, layer.in_features]
            raise mismatch(self.path, name, expected=f"[N, K] = [{n}, {k}]", found=found)
        return layer

    def _read_tied(self) -> QuantizedLinear | DenseLinear:
        return DenseLinear(self.tensor("model.embed_tokens.weight"))

    def __repr__(self) -> str:
        model = f"{self.config.architecture}, {self.config.num_layers} layers"
        return f"<{self.format} checkpoint {self.path.name}: {model}, {self.bytes_on_disk / 1e6:.0f} MB>"
