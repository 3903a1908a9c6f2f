"""OpenVINO IR with compressed weights, as NNCF and optimum-intel write it.

Layout: NNCF, `openvino_backend.py` (`_create_compression_subgraph`), and IRs made by optimum-intel 2.2.0.

A weight is Const (u4, i4, u8 or i8, [N, K/G, G] or [N, K]) -> Convert -> [Subtract Convert(Const zero)] -> Multiply
by Const scale (f16, [N, K/G, 1] or [N, 1]) -> Reshape -> MatMul or Gather. Nibbles are low first. Symmetric scales
may be negative. Constants of layers carry their name; those of norms and biases are found by the name of the layer
that consumes them.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import ml_dtypes
import numpy as np
import numpy.typing as npt

from qforensics.checkpoints._base import Checkpoint
from qforensics.checkpoints._config import ModelConfig
from qforensics.checkpoints._errors import CheckpointError, mismatch
from qforensics.checkpoints._openvino_xml import Constant, Graph, read_graph
from qforensics.checkpoints._types import Array, DenseLinear, QuantizedLinear

__all__ = ["OpenvinoDirectory"]

_FLOATS: Mapping[str, np.dtype[np.generic]] = MappingProxyType(
    {"f16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16), "f32": np.dtype(np.float32)}
)
_INTEGERS = ("u4", "i4", "u8", "i8")

_OWN_NAME = re.compile(r"(?:self\.|__module\.)?((?:model\.|lm_head).*?)\.(?:_openvino_orig_)?(weight|bias)")
_CONSUMER_NAME = re.compile(r"__module\.(model\.[\w.]+)/.*")


@dataclass(frozen=True)
class _Compressed:
    """The constants of one compressed weight."""

    weight: Constant
    zero: Constant | None
    scale: Constant


def _canonical(graph: Graph, key: str) -> str | None:
    """Hugging Face name of a constant: its own, or, for norms and biases, that of the layer it feeds."""
    own = _OWN_NAME.fullmatch(graph.constants[key].name)
    if own:
        return f"{own[1]}.{own[2]}"
    for target, _ in graph.consumers[key]:
        kind, name = graph.layers.get(target, ("", ""))
        match = _CONSUMER_NAME.fullmatch(name)
        if match and kind == "Multiply" and match[1].endswith("norm"):
            return match[1] + ".weight"
        if match and kind == "Add" and match[1].endswith("_proj"):
            return match[1] + ".bias"
    return None


class OpenvinoDirectory(Checkpoint):
    """Reader of ``openvino_model.xml`` and ``.bin`` beside a ``config.json``.

    Parameters
    ----------
    path
        The directory.
    config
        From its config.json.

    Raises
    ------
    CheckpointError
        See `read_graph`; weights that are not the subgraph above; missing ones; names that appear twice.
    """

    format = "openvino"

    def __init__(self, path: Path, config: ModelConfig) -> None:
        self.xml, self.bin = path / "openvino_model.xml", path / "openvino_model.bin"
        if not self.bin.is_file():
            raise mismatch(path, "openvino_model.bin", expected="a file", found="none")
        graph = read_graph(self.xml, self.bin.stat().st_size)
        self._found: dict[str, Constant | _Compressed] = {}
        for key, constant in graph.constants.items():
            if constant.type in _FLOATS or constant.type in _INTEGERS:
                self._add(graph, key, constant)
        end = max((c.offset + c.size for c in graph.constants.values()), default=0)
        if end != self.bin.stat().st_size:
            raise mismatch(self.bin, "size", expected=f"the last constant's end, {end}", found=self.bin.stat().st_size)
        super().__init__(path, config, {"method": "openvino", **graph.compression})

    def _add(self, graph: Graph, key: str, constant: Constant) -> None:
        name = _canonical(graph, key)
        if name is None:
            return
        if name in self._found:
            raise mismatch(self.xml, name, expected="each weight once", found="it twice")
        self._found[name] = constant if constant.type in _FLOATS else self._compressed(graph, key, name)

    def _compressed(self, graph: Graph, key: str, name: str) -> _Compressed:
        """Follow Const -> Convert -> [Subtract] -> Multiply."""
        node, zero = self._next(graph, key, "Convert", name), None
        node = self._next(graph, node, "Subtract or Multiply", name)
        if graph.layers[node][0] == "Subtract":
            zero = self._operand(graph, node, name)
            node = self._next(graph, node, "Multiply", name)
        scale = self._operand(graph, node, name)
        if scale.type != "f16":
            raise mismatch(self.xml, f"{name}: scale", expected="f16", found=scale.type)
        if zero is not None and zero.type not in _INTEGERS:
            raise mismatch(self.xml, f"{name}: zero point", expected=" or ".join(_INTEGERS), found=zero.type)
        return _Compressed(graph.constants[key], zero, scale)

    def _next(self, graph: Graph, key: str, kinds: str, name: str) -> str:
        """The one consumer of a layer, at port 0 and of one of the kinds."""
        consumers = [(node, port) for node, port in graph.consumers[key] if node in graph.layers]
        found = [graph.layers[node][0] for node, _ in consumers]
        if len(consumers) != 1 or consumers[0][1] != "0" or found[0] not in kinds.split(" or "):
            raise mismatch(self.xml, name, expected=f"one consumer, {kinds}, of {graph.layers[key][0]}", found=found)
        return consumers[0][0]

    def _operand(self, graph: Graph, node: str, name: str) -> Constant:
        """The constant at port 1 of a layer, through a Convert or not."""
        source = graph.inputs[node].get("1", "")
        if graph.layers.get(source, ("", ""))[0] == "Convert":
            source = graph.inputs[source].get("0", "")
        if source not in graph.constants:
            raise mismatch(
                self.xml,
                name,
                expected=f"a constant at port 1 of {graph.layers[node][0]}",
                found=graph.layers.get(source),
            )
        return graph.constants[source]

    def _require(self, name: str) -> Constant | _Compressed:
        found = self._found.get(name)
        if found is None:
            raise mismatch(self.xml, name, expected="a constant", found="none of that name")
        return found

    def _stored_names(self) -> Iterable[str]:
        return self._found

    def _check_tensor(self, name: str, shape: tuple[int, ...]) -> None:
        found = self._require(name)
        if isinstance(found, _Compressed):
            if len(shape) != 2:
                raise mismatch(self.xml, name, expected="a float constant", found=found.weight.type)
            self._check_compressed(found, name, *shape)
        elif tuple(e for e in found.shape if e != 1) != tuple(e for e in shape if e != 1):
            raise mismatch(self.xml, name, expected=f"shape {list(shape)}", found=list(found.shape))

    def _check_linear(self, name: str, n: int, k: int) -> None:
        self._check_tensor(name + ".weight", (n, k))

    def _check_compressed(self, found: _Compressed, name: str, n: int, k: int) -> None:
        shape = found.weight.shape
        if len(shape) not in (2, 3) or shape[0] != n or int(np.prod(shape[1:], dtype=np.int64)) != k:
            raise mismatch(self.xml, name, expected=f"[{n}, K/G, G] or [{n}, {k}] with K = {k}", found=list(shape))
        grid = (n, 1) if len(shape) == 2 else (n, shape[1], 1)
        for label, constant in (("scale", found.scale), ("zero point", found.zero)):
            if (
                constant is not None
                and constant.shape != grid
                and not (label == "zero point" and set(constant.shape) <= {1})
            ):
                raise mismatch(self.xml, f"{name}: {label}", expected=f"shape {list(grid)}", found=list(constant.shape))

    def _bytes(self, constant: Constant) -> npt.NDArray[np.uint8]:
        with open(self.bin, "rb") as stream:
            stream.seek(constant.offset)
            data = np.fromfile(stream, np.uint8, constant.size)
        if data.size != constant.size:
            raise CheckpointError(f"{self.bin}: {constant.name}: changed since it was opened: truncated")
        return data

    def _codes(self, constant: Constant) -> npt.NDArray[np.uint8]:
        """Elements as unsigned codes, signed ones shifted by half the range."""
        data = self._bytes(constant)
        if constant.type in ("u8", "i8"):
            return data if constant.type == "u8" else data ^ np.uint8(128)
        codes = np.stack([data & 15, data >> 4], axis=-1).reshape(-1)[: int(np.prod(constant.shape, dtype=np.int64))]
        return codes if constant.type == "u4" else codes ^ np.uint8(8)

    def _read_compressed(self, name: str, found: _Compressed, bias: Array | None) -> QuantizedLinear:
        shape = found.weight.shape
        n, groups = shape[0], 1 if len(shape) == 2 else shape[1]
        bits = 4 if found.weight.type in ("u4", "i4") else 8
        half = 1 << (bits - 1)
        if found.zero is None:
            zeros = np.full((groups, n), half if found.weight.type.startswith("i") else 0, np.uint8)
        elif found.zero.type != found.weight.type:
            raise mismatch(self.xml, f"{name}: zero point", expected=found.weight.type, found=found.zero.type)
        else:
            zeros = np.broadcast_to(self._codes(found.zero), (n * groups,)).reshape(n, groups).T
        return QuantizedLinear(
            np.ascontiguousarray(self._codes(found.weight).reshape(n, -1).T),
            np.ascontiguousarray(zeros),
            np.ascontiguousarray(self._bytes(found.scale).view(np.float16).reshape(n, groups).T),
            group_size=-1 if groups == 1 else shape[2],
            bias=bias,
            bits=bits,
        )

    def _read_tensor(self, name: str) -> Array:
        found = self._require(name)
        if isinstance(found, _Compressed):
            return self._read_compressed(name, found, None).dequantize()
        return self._bytes(found).view(_FLOATS[found.type]).reshape(self._tensor_shapes[name])

    def _read_linear(self, name: str, n: int, k: int) -> QuantizedLinear | DenseLinear:
        bias = self._read_tensor(name + ".bias") if name + ".bias" in self._tensor_shapes else None
        found = self._require(name + ".weight")
        if isinstance(found, _Compressed):
            return self._read_compressed(name, found, bias)
        return DenseLinear(self._bytes(found).view(_FLOATS[found.type]).reshape(n, k), bias)

    def _read_tied(self) -> QuantizedLinear | DenseLinear:
        found = self._require("model.embed_tokens.weight")
        return self._read_compressed("lm_head", found, None) if isinstance(found, _Compressed) else super()._read_tied()

    @property
    def bytes_on_disk(self) -> int:
        """Size of the .xml and .bin files in bytes."""
        return self.xml.stat().st_size + self.bin.stat().st_size

    def _weight_files(self) -> Iterable[Path]:
        return [self.xml, self.bin]

    def _read_digest(self) -> str:
        """SHA-256 (hex) over the two files, .xml first."""
        total = hashlib.sha256()
        for file in (self.xml, self.bin):
            with open(file, "rb") as stream:
                total.update(hashlib.file_digest(stream, "sha256").digest())
        return total.hexdigest()
