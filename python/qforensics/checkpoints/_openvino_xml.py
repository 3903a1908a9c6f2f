"""The graph of an OpenVINO IR: its constants and who consumes them, from an XML file of unknown origin.

Expat, streaming; documents that declare a type or an entity are refused, so nothing expands and nothing else is opened.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from xml.parsers import expat

from qforensics.checkpoints._errors import CheckpointError, mismatch

__all__ = ["BITS", "Constant", "Graph", "read_graph"]

#: Bits per element of the types that constants of a language model have.
BITS = {
    "u4": 4, "i4": 4, "u8": 8, "i8": 8, "f16": 16, "bf16": 16, "f32": 32, "i32": 32, "i64": 64, "boolean": 8,
    "f64": 64, "u16": 16, "i16": 16, "u32": 32, "u64": 64,
}  # fmt: skip

MAX_XML_BYTES = 256 * 2**20
MAX_DEPTH = 64
MAX_DIMENSIONS = 16


@dataclass(frozen=True)
class Constant:
    """A constant: its name, element type, shape, and bytes [offset, offset + size) of the .bin file."""

    name: str
    type: str
    shape: tuple[int, ...]
    offset: int
    size: int


@dataclass
class Graph:
    """Constants by layer id; type and name of every layer; layers that a layer feeds, with the port; and NNCF's
    record."""

    constants: dict[str, Constant] = field(default_factory=dict)
    layers: dict[str, tuple[str, str]] = field(default_factory=dict)
    consumers: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    inputs: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    compression: dict[str, str] = field(default_factory=dict)


class _Reader:
    """Expat's callbacks."""

    def __init__(self, path: Path, bin_size: int) -> None:
        self.path, self.bin_size = path, bin_size
        self.graph = Graph()
        self.stack: list[str] = []
        self.layer: dict[str, str] = {}

    def refuse(self, *_: object) -> NoReturn:
        raise mismatch(self.path, "XML", expected="no document type and no entities", found="a declaration")

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.stack.append(tag)
        if len(self.stack) > MAX_DEPTH:
            raise mismatch(self.path, "XML", expected=f"at most {MAX_DEPTH} levels", found="deeper nesting")
        if len(self.stack) == 1 and (tag != "net" or attributes.get("version") not in ("10", "11")):
            raise mismatch(
                self.path, "root", expected="<net> of version 10 or 11", found=f"<{tag}> {attributes.get('version')}"
            )
        place = self.stack[1:]
        if place == ["layers", "layer"]:
            self._layer(attributes)
        elif place == ["layers", "layer", "data"] and self.layer.get("type") == "Const":
            self._constant(attributes)
        elif place == ["edges", "edge"]:
            self._edge(attributes)
        elif len(place) == 4 and place[:3] == ["rt_info", "nncf", "weight_compression"] and "value" in attributes:
            self.graph.compression[tag] = attributes["value"]

    def end(self, _: str) -> None:
        self.stack.pop()

    def _attribute(self, attributes: dict[str, str], name: str) -> str:
        value = attributes.get(name)
        if value is None:
            raise mismatch(self.path, f"<{self.stack[-1]}>", expected=f"an attribute {name!r}", found="none")
        return value

    def _layer(self, attributes: dict[str, str]) -> None:
        key = self._attribute(attributes, "id")
        if key in self.graph.layers:
            raise mismatch(self.path, f"layer {key}", expected="each id once", found="it twice")
        self.layer = attributes
        self.graph.layers[key] = (self._attribute(attributes, "type"), attributes.get("name", ""))

    def _constant(self, attributes: dict[str, str]) -> None:
        name = self.layer.get("name", "")
        kind = self._attribute(attributes, "element_type")
        if kind not in BITS:
            raise mismatch(self.path, name, expected=f"element type {' or '.join(BITS)}", found=kind)
        extents = [part.strip() for part in self._attribute(attributes, "shape").split(",") if part.strip()]
        if len(extents) > MAX_DIMENSIONS:
            raise mismatch(self.path, name, expected=f"at most {MAX_DIMENSIONS} dimensions", found=len(extents))
        numbers = [*extents, self._attribute(attributes, "offset"), self._attribute(attributes, "size")]
        if not all(n.isascii() and n.isdigit() and len(n) < 16 for n in numbers):
            raise mismatch(self.path, name, expected="decimal shape, offset and size", found=numbers)
        shape, (offset, size) = tuple(int(e) for e in extents), (int(n) for n in numbers[-2:])
        elements = 1
        for extent in shape:
            elements *= extent
        if size != -(-elements * BITS[kind] // 8):
            raise mismatch(
                self.path,
                name,
                expected=f"{-(-elements * BITS[kind] // 8)} bytes ({kind} {list(shape)})",
                found=f"size {size}",
            )
        if offset + size > self.bin_size:
            raise mismatch(
                self.path,
                name,
                expected=f"data inside the .bin file of {self.bin_size} bytes",
                found=f"{offset}+{size}",
            )
        self.graph.constants[self.layer["id"]] = Constant(name, kind, shape, offset, size)

    def _edge(self, attributes: dict[str, str]) -> None:
        source, target = self._attribute(attributes, "from-layer"), self._attribute(attributes, "to-layer")
        port = self._attribute(attributes, "to-port")
        if port in self.graph.inputs[target]:
            raise mismatch(self.path, f"layer {target}", expected="one edge per input", found=f"two into port {port}")
        self.graph.consumers[source].append((target, port))
        self.graph.inputs[target][port] = source


def read_graph(path: Path, bin_size: int) -> Graph:
    """Read the graph of an IR whose .bin file has `bin_size` bytes.

    Raises
    ------
    CheckpointError
        Not well-formed, a declaration, too large or too deep; constants of unknown type, whose size contradicts their
        shape, or outside the .bin file.
    """
    reader = _Reader(path, bin_size)
    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = reader.refuse
    try:
        if path.stat().st_size > MAX_XML_BYTES:
            raise mismatch(path, "size", expected=f"at most {MAX_XML_BYTES} bytes", found=path.stat().st_size)
        with open(path, "rb") as stream:
            parser.ParseFile(stream)
    except expat.ExpatError as error:
        raise mismatch(path, "XML", expected="a well-formed document", found=error) from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    return reader.graph
