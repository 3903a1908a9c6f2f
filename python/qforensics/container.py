"""The safe file: a safetensors file whose metadata holds one JSON header with a digest of every array and of itself.

Files come from adversaries (design, rule 6). Nothing is executed, nothing is allocated that the file does not hold, and
every field is checked before it is used. A file that differs from a good one in any byte is refused.

Layout: metadata ``{"qforensics.<kind>": header}``; header (JSON) ``{"arrays": {name: sha256}, "digest": sha256 of the
header without this key, "fields": {...}, "version": int}``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from qforensics._json import canonical_json, parse_json, read_bytes, write_atomic
from qforensics._refusal import refusal

__all__ = ["ArraySpec", "ContainerError", "array_digest", "read_container", "write_container"]

MAX_FILE_BYTES = 1 << 31
MAX_HEADER_BYTES = 1 << 23

_DTYPES = {"F32": np.float32, "F64": np.float64, "I32": np.int32, "I64": np.int64, "U8": np.uint8}


class ContainerError(ValueError):
    """A file that is refused: names file, field, what was expected and what was found."""

    def __init__(self, path: object, field: str, expected: object, found: object) -> None:
        super().__init__(refusal(str(path), field, expected, found))
        self.path, self.field, self.expected, self.found = str(path), field, expected, found


@dataclass(frozen=True)
class ArraySpec:
    """What an array of a container must be: `dtype` and number of dimensions."""

    dtype: type[np.generic]
    dimensions: int = 1


def array_digest(array: NDArray[Any]) -> str:
    """SHA-256 (hex) of an array's dtype, shape and little-endian bytes."""
    head = f"{array.dtype.name} {list(array.shape)}\n".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()


def _header_digest(header: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json({k: v for k, v in header.items() if k != "digest"}).encode()).hexdigest()


def write_container(
    path: str | os.PathLike[str],
    *,
    kind: str,
    version: int,
    fields: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
) -> str:
    """Write arrays and JSON fields atomically (temporary file, fsync, rename).

    Parameters
    ----------
    path
        Target; its directory must exist.
    kind, version
        Name and version of what the file holds.
    fields
        JSON-able values (no NaN, no infinities).
    arrays
        Name -> array of float32, float64, int32, int64 or uint8.

    Returns
    -------
    str
        The header's digest (hex SHA-256): it covers fields and arrays.
    """
    header: dict[str, Any] = {
        "arrays": {name: array_digest(array) for name, array in arrays.items()},
        "fields": dict(fields),
        "version": version,
    }
    header["digest"] = _header_digest(header)
    text = canonical_json(header)
    if len(text) > MAX_HEADER_BYTES:
        raise ContainerError(path, "header", f"at most {MAX_HEADER_BYTES} bytes", len(text))
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_atomic(path, safetensors.numpy.save(contiguous, metadata={f"qforensics.{kind}": text}))
    return str(header["digest"])


def _structure(path: str, data: bytes) -> tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]:
    """The safetensors header's metadata and tensors; the library checks offsets, sizes and gaps."""
    if len(data) < 8:
        raise ContainerError(path, "file", "at least 8 bytes", len(data))
    length = int.from_bytes(data[:8], "little")
    if length > min(len(data) - 8, 2 * MAX_HEADER_BYTES):
        raise ContainerError(path, "header length", f"at most {min(len(data) - 8, 2 * MAX_HEADER_BYTES)}", length)
    try:
        tensors = safetensors.deserialize(data)  # type: ignore[no-untyped-call]
        head = parse_json(data[8 : 8 + length])
    except (safetensors.SafetensorError, ValueError) as error:
        raise ContainerError(path, "file", "a safetensors file", error) from None
    if set(head) - {"__metadata__"} != {name for name, _ in tensors}:
        raise ContainerError(path, "tensors", sorted(set(head) - {"__metadata__"}), sorted(n for n, _ in tensors))
    return head.get("__metadata__", {}), tensors


def _header(path: str, metadata: Mapping[str, Any], kind: str, version: int) -> dict[str, Any]:
    key = f"qforensics.{kind}"
    if set(metadata) != {key}:
        raise ContainerError(path, "metadata", f"one key {key!r}", sorted(metadata))
    try:
        header = parse_json(metadata[key])
        digest = _header_digest(header) if isinstance(header, dict) else ""
    except ValueError as error:
        raise ContainerError(path, key, "JSON", error) from None
    if not isinstance(header, dict) or set(header) != {"arrays", "digest", "fields", "version"}:
        found = sorted(header) if isinstance(header, dict) else type(header).__name__
        raise ContainerError(path, key, ["arrays", "digest", "fields", "version"], found)
    if header["version"] != version or isinstance(header["version"], bool):
        raise ContainerError(path, f"{key} version", version, header["version"])
    if not isinstance(header["arrays"], dict) or not isinstance(header["fields"], dict):
        raise ContainerError(path, key, "objects `arrays` and `fields`", canonical_json(header)[:80])
    if header["digest"] != digest:
        raise ContainerError(path, f"{key} digest", digest, header["digest"])
    return header


def _array(path: str, name: str, tensor: Mapping[str, Any], spec: ArraySpec, digest: object) -> NDArray[Any]:
    dtype = _DTYPES.get(str(tensor["dtype"]))
    if dtype is not spec.dtype:
        raise ContainerError(path, f"array {name!r} dtype", spec.dtype.__name__, tensor["dtype"])
    if len(tensor["shape"]) != spec.dimensions:
        raise ContainerError(path, f"array {name!r}", f"{spec.dimensions} dimension(s)", list(tensor["shape"]))
    array = np.frombuffer(bytes(tensor["data"]), dtype=spec.dtype).reshape(tensor["shape"])
    found = array_digest(array)
    if found != digest:
        raise ContainerError(path, f"array {name!r} digest", digest, found)
    return array


def read_container(
    path: str | os.PathLike[str], *, kind: str, version: int, arrays: Mapping[str, ArraySpec]
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read a container and check everything that can be checked without knowing its meaning.

    Parameters
    ----------
    path
        A file written by `write_container`.
    kind, version
        What it must be.
    arrays
        The arrays that it must hold, no more and no fewer.

    Returns
    -------
    tuple
        The header's fields, and name -> read-only array.

    Raises
    ------
    ContainerError
        Naming file, field, expected and found. Memory stays within a small multiple of the file's size.
    OSError
        When the file cannot be read.
    """
    name = os.fspath(path)
    try:
        data = read_bytes(path, limit=MAX_FILE_BYTES)
    except ValueError as error:
        raise ContainerError(name, "file", f"at most {MAX_FILE_BYTES} bytes", error) from None
    metadata, tensors = _structure(name, data)
    header = _header(name, metadata, kind, version)
    if {n for n, _ in tensors} != set(arrays) or set(header["arrays"]) != set(arrays):
        raise ContainerError(
            name,
            "arrays",
            sorted(arrays),
            sorted({n for n, _ in tensors} ^ set(header["arrays"])) or sorted(n for n, _ in tensors),
        )
    found = {n: _array(name, n, tensor, arrays[n], header["arrays"][n]) for n, tensor in tensors}
    return header["fields"], found
