"""An OpenVINO IR that holds a model's compressed weights: each as NNCF's subgraph, ending in a Result of that name.

It holds no forward pass; OpenVINO opens it and yields every weight, and `qforensics` replays with them.
Layout: `qforensics.checkpoints._openvino`.
"""

from pathlib import Path
from types import TracebackType
from typing import BinaryIO
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt

from qforensics.checkpoints import Checkpoint, QuantizedLinear
from qforensics.checkpoints._types import Array
from qforensics.quantize._dense import dense_weight
from qforensics.quantize._progress import Progress
from qforensics.quantize._round_to_nearest import openvino

__all__ = ["write_openvino"]

_PRECISION = {"u4": "U4", "u8": "U8", "f16": "FP16", "f32": "FP32", "i64": "I64"}


class _IrWriter:
    """Appends constants to the .bin file and layers to the .xml text."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bin: BinaryIO = open(folder / "openvino_model.bin", "xb")  # noqa: SIM115 (closed by __exit__)
        self._offset = 0
        self._layers: list[str] = []
        self._edges: list[str] = []

    def __enter__(self) -> "_IrWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bin.close()
        if kind is None:
            body = ["<layers>", *self._layers, "</layers>", "<edges>", *self._edges, "</edges>", "<rt_info />"]
            text = "\n".join(
                ['<?xml version="1.0"?>', '<net name="qforensics_weights" version="11">', *body, "</net>", ""]
            )
            (self._folder / "openvino_model.xml").write_text(text)

    def layer(self, kind: str, name: str, data: str, inputs: list[int], precision: str, shape: tuple[int, ...]) -> int:
        """Append a layer; input i comes from layer ``inputs[i]``. Returns its id."""
        key = len(self._layers)
        ports = "".join(f'<port id="{i}" />' for i in range(len(inputs)))
        extents = "".join(f"<dim>{extent}</dim>" for extent in shape)
        output = f'<output><port id="{len(inputs)}" precision="{_PRECISION[precision]}">{extents}</port></output>'
        head = f'<layer id="{key}" name={quoteattr(name)} type="{kind}" version="opset1">'
        body = (
            (f"<data {data} />" if data else "")
            + (f"<input>{ports}</input>" if ports else "")
            + (output if kind != "Result" else "")
        )
        self._layers.append(f"{head}{body}</layer>")
        for port, source in enumerate(inputs):
            self._edges.append(
                f'<edge from-layer="{source}" from-port="{self._out_port(source)}" to-layer="{key}" to-port="{port}" />'
            )
        return key

    def _out_port(self, key: int) -> int:
        """A layer's output port follows its input ports."""
        return self._layers[key].split("<output>")[0].count("<port ")

    def constant(self, name: str, kind: str, array: Array, shape: tuple[int, ...]) -> int:
        """Append a constant; u4 arrays hold one code per element."""
        flat = np.ascontiguousarray(array).reshape(-1)
        if kind == "u4":
            flat = _nibbles(flat.view(np.uint8))
        data = flat.view(np.uint8).data
        self._bin.write(data)
        extents = ", ".join(str(extent) for extent in shape)
        described = f'element_type="{kind}" shape="{extents}" offset="{self._offset}" size="{data.nbytes}"'
        self._offset += data.nbytes
        return self.layer("Const", name, described, [], kind, shape)

    def dense(self, name: str, array: Array) -> None:
        """Append a float32 constant and its Result."""
        key = self.constant("self." + name, "f32", array.astype(np.float32), array.shape)
        self.layer("Result", name, "", [key], "f32", array.shape)

    def compressed(self, name: str, linear: QuantizedLinear) -> None:
        """Append a compressed weight [N, K] and its Result."""
        own, kind = "self." + name, "u4" if linear.bits == 4 else "u8"
        n, k, groups = linear.out_features, linear.in_features, linear.scales.shape[0]
        whole, grid = ((n, k), (n, 1)) if linear.group_size == -1 else ((n, groups, k // groups), (n, groups, 1))
        codes = self._half(own, self.constant(own, kind, linear.codes.T, whole), whole)
        zeros = self._half(own + "/zero_point", self.constant(own + "/zero_point", kind, linear.zeros.T, grid), grid)
        numpy = 'auto_broadcast="numpy"'
        difference = self.layer("Subtract", own + "/zero_point/subtract", numpy, [codes, zeros], "f16", whole)
        scales = self.constant(own + "/scale", "f16", linear.scales.T, grid)
        key = self.layer("Multiply", own + "/fq_weights_1", numpy, [difference, scales], "f16", whole)
        if len(whole) == 3:
            target = self.constant(own + "/shape", "i64", np.array([n, k], np.int64), (2,))
            key = self.layer("Reshape", own + "/reshape", 'special_zero="false"', [key, target], "f16", (n, k))
        key = self.layer("Convert", own + "/to_f32", 'destination_type="f32"', [key], "f32", (n, k))
        self.layer("Result", name, "", [key], "f32", (n, k))

    def _half(self, name: str, key: int, shape: tuple[int, ...]) -> int:
        return self.layer("Convert", name + "/to_f16", 'destination_type="f16"', [key], "f16", shape)


def _nibbles(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Two codes per byte, low nibble first."""
    even = codes if codes.size % 2 == 0 else np.append(codes, np.uint8(0))
    return even[0::2] | even[1::2] << np.uint8(4)


def write_openvino(checkpoint: Checkpoint, folder: Path, group_size: int, progress: Progress | None) -> None:
    """Write ``openvino_model.xml`` and ``.bin``: 4-bit layers, 8-bit embedding and lm_head (per row), float32 norms."""
    half = np.dtype(np.float16)
    layers = [name for name in checkpoint.linear_names if name != "lm_head"]
    with _IrWriter(folder) as writer:
        for name in checkpoint.names:
            tensor = checkpoint.tensor(name)
            if tensor.ndim == 2:
                writer.compressed(name, openvino(tensor, -1, bits=8))
            else:
                writer.dense(name, tensor)
        if not checkpoint.config.tie_embeddings:
            writer.compressed("lm_head.weight", openvino(dense_weight(checkpoint, "lm_head", half), -1, bits=8))
        for done, name in enumerate(layers):
            if progress is not None:
                progress("openvino", done, len(layers))
            writer.compressed(name + ".weight", openvino(dense_weight(checkpoint, name, half), group_size))
    if progress is not None:
        progress("openvino", len(layers), len(layers))
