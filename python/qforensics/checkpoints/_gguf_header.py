"""The header of a GGUF file, read with every length checked against the file before it is believed.

The `gguf` package supplies the constants; its reader is not used on files of unknown origin: it loops for as long as a
length field says, past the end of the file, and keeps the file mapped. Format: ggml's docs/gguf.md, versions 2 and 3.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from gguf.constants import GGML_QUANT_SIZES, GGUF_DEFAULT_ALIGNMENT, GGUF_MAGIC, GGMLQuantizationType, GGUFValueType

from qforensics.checkpoints._errors import CheckpointError, mismatch

__all__ = ["GgufHeader", "GgufTensor", "read_header"]

_SCALARS = {
    GGUFValueType.UINT8: "B", GGUFValueType.INT8: "b", GGUFValueType.UINT16: "H", GGUFValueType.INT16: "h",
    GGUFValueType.UINT32: "I", GGUFValueType.INT32: "i", GGUFValueType.UINT64: "Q", GGUFValueType.INT64: "q",
    GGUFValueType.FLOAT32: "f", GGUFValueType.FLOAT64: "d", GGUFValueType.BOOL: "?",
}  # fmt: skip


@dataclass(frozen=True)
class GgufTensor:
    """One tensor of the file: its type, shape in row-major order (slowest axis first), and bytes [offset, offset +
    size)."""

    name: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int
    size: int


@dataclass(frozen=True)
class _ArrayField:
    """An array of the header, left in the file until asked for."""

    type: GGUFValueType
    count: int
    offset: int


@dataclass(frozen=True)
class GgufHeader:
    """Fields and tensors of a GGUF file. `fields` holds scalars and strings; `array` reads an array on demand."""

    path: Path
    fields: dict[str, Any]
    arrays: dict[str, _ArrayField]
    tensors: dict[str, GgufTensor]

    def require(self, key: str, kind: type | tuple[type, ...]) -> Any:
        """Return a scalar or string field, or raise `CheckpointError` where it is absent or of another type."""
        value = self.fields.get(key)
        if (isinstance(value, bool) and kind is not bool) or not isinstance(value, kind):
            raise mismatch(self.path, key, expected=f"a field of type {kind}", found=repr(value))
        return value

    def array(self, key: str) -> list[Any]:
        """Read an array field as a list of str, int, float or bool."""
        field = self.arrays.get(key)
        if field is None:
            raise mismatch(self.path, key, expected="an array field", found="none")
        with open(self.path, "rb") as stream:
            cursor = _Cursor(stream, self.path, field.offset)
            if field.type is GGUFValueType.STRING:
                return [cursor.string(key) for _ in range(field.count)]
            return list(cursor.unpack(f"{field.count}{_SCALARS[field.type]}", key))


class _Cursor:
    """Reads forward through a file, refusing to step beyond its end."""

    def __init__(self, stream: BinaryIO, path: Path, offset: int = 0) -> None:
        self.stream, self.path, self.offset = stream, path, offset
        self.size = path.stat().st_size
        stream.seek(offset)

    def take(self, count: int, subject: str) -> bytes:
        self._reserve(count, subject)
        data = self.stream.read(count)
        if len(data) != count:
            raise mismatch(self.path, subject, expected=f"{count} bytes", found=f"{len(data)} (truncated)")
        self.offset += count
        return data

    def skip(self, count: int, subject: str) -> None:
        self._reserve(count, subject)
        self.stream.seek(count, 1)
        self.offset += count

    def _reserve(self, count: int, subject: str) -> None:
        if count > self.size - self.offset:
            raise mismatch(
                self.path,
                subject,
                expected=f"{count} bytes at offset {self.offset}",
                found=f"the file's end at {self.size}",
            )

    def unpack(self, code: str, subject: str) -> tuple[Any, ...]:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code), subject))

    def integer(self, code: str, subject: str) -> int:
        return int(self.unpack(code, subject)[0])

    def string(self, subject: str) -> str:
        data = self.take(self.integer("Q", subject), subject)
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise mismatch(self.path, subject, expected="UTF-8", found=data[:40]) from None

    def value_type(self, subject: str) -> GGUFValueType:
        raw = self.integer("I", subject)
        try:
            return GGUFValueType(raw)
        except ValueError:
            raise mismatch(self.path, subject, expected="a GGUF value type", found=raw) from None


def read_header(path: Path) -> GgufHeader:
    """Read and check the header of a GGUF file.

    Raises
    ------
    CheckpointError
        Not GGUF version 2 or 3, little-endian; truncated; nested arrays; duplicate keys or tensors; a tensor of unknown
        type, misaligned, outside the file or overlapping another; bytes left over at the end.
    """
    try:
        with open(path, "rb") as stream:
            cursor = _Cursor(stream, path)
            magic, version = cursor.unpack("II", "magic")
            if magic != GGUF_MAGIC:
                raise mismatch(path, "magic", expected="GGUF", found=hex(magic))
            if version not in (2, 3):
                raise mismatch(path, "version", expected="2 or 3, little-endian", found=version)
            tensor_count, field_count = cursor.unpack("QQ", "counts")
            fields, arrays = _read_fields(cursor, field_count)
            infos = [_read_info(cursor) for _ in range(_bounded(cursor, tensor_count, 32, "tensor count"))]
            tensors = _place(cursor, infos, fields.get("general.alignment", GGUF_DEFAULT_ALIGNMENT))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    return GgufHeader(path, fields, arrays, tensors)


def _bounded(cursor: _Cursor, count: int, least: int, subject: str) -> int:
    """Return a count of things of at least `least` bytes, if the rest of the file can hold them."""
    if count * least > cursor.size - cursor.offset:
        raise mismatch(cursor.path, subject, expected="no more than the file can hold", found=count)
    return count


def _read_fields(cursor: _Cursor, count: int) -> tuple[dict[str, Any], dict[str, _ArrayField]]:
    fields: dict[str, Any] = {}
    arrays: dict[str, _ArrayField] = {}
    for _ in range(_bounded(cursor, count, 13, "field count")):
        key = cursor.string("field name")
        if key in fields or key in arrays:
            raise mismatch(cursor.path, key, expected="each field once", found="it twice")
        kind = cursor.value_type(key)
        if kind is GGUFValueType.ARRAY:
            arrays[key] = _skip_array(cursor, key)
        elif kind is GGUFValueType.STRING:
            fields[key] = cursor.string(key)
        else:
            fields[key] = cursor.unpack(_SCALARS[kind], key)[0]
    return fields, arrays


def _skip_array(cursor: _Cursor, key: str) -> _ArrayField:
    kind, count = cursor.value_type(key), cursor.integer("Q", key)
    if kind is GGUFValueType.ARRAY:
        raise mismatch(cursor.path, key, expected="an array of scalars or strings", found="an array of arrays")
    field = _ArrayField(kind, count, cursor.offset)
    if kind is GGUFValueType.STRING:
        for _ in range(_bounded(cursor, count, 8, key)):
            cursor.skip(cursor.integer("Q", key), key)
    else:
        cursor.skip(count * struct.calcsize("<" + _SCALARS[kind]), key)
    return field


def _read_info(cursor: _Cursor) -> GgufTensor:
    name = cursor.string("tensor name")
    dimensions = cursor.integer("I", name)
    if not 1 <= dimensions <= 4:
        raise mismatch(cursor.path, name, expected="1 to 4 dimensions", found=dimensions)
    shape = tuple(int(x) for x in reversed(cursor.unpack(f"{dimensions}Q", name)))
    raw, offset = cursor.integer("I", name), cursor.integer("Q", name)
    try:
        kind = GGMLQuantizationType(raw)
    except ValueError:
        raise mismatch(cursor.path, name, expected="a ggml tensor type", found=raw) from None
    block, size = GGML_QUANT_SIZES[kind]
    elements = 1
    for extent in shape:
        elements *= extent
    if elements == 0 or shape[-1] % block:
        raise mismatch(
            cursor.path, name, expected=f"rows of whole {kind.name} blocks of {block}", found=f"shape {list(shape)}"
        )
    return GgufTensor(name, kind, shape, offset, elements // block * size)


def _place(cursor: _Cursor, infos: list[GgufTensor], alignment: Any) -> dict[str, GgufTensor]:
    """Turn offsets within the data section into offsets within the file, checking that the tensors tile it."""
    path = cursor.path
    if (
        isinstance(alignment, bool)
        or not isinstance(alignment, int)
        or not 8 <= alignment <= 2**16
        or alignment & (alignment - 1)
    ):
        raise mismatch(path, "general.alignment", expected="a power of two in 8..65536", found=alignment)
    start = end = -cursor.offset % alignment + cursor.offset
    tensors: dict[str, GgufTensor] = {}
    for info in sorted(infos, key=lambda t: t.offset):
        offset = start + info.offset
        if info.name in tensors:
            raise mismatch(path, info.name, expected="each tensor once", found="it twice")
        if offset % alignment or offset < end:
            raise mismatch(path, info.name, expected=f"an offset from {end}, aligned to {alignment}", found=offset)
        end = offset + info.size
        if end > cursor.size:
            raise mismatch(
                path, info.name, expected=f"{info.size} bytes at {offset}", found=f"the file's end at {cursor.size}"
            )
        tensors[info.name] = GgufTensor(info.name, info.type, info.shape, offset, info.size)
    if cursor.size - end >= alignment:
        raise mismatch(path, "size", expected=f"the last tensor's end, {end}", found=f"{cursor.size} bytes")
    return tensors
