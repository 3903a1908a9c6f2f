"""The safetensors files of one directory, seen as one set of tensors that are read one module at a time."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from qforensics.checkpoints._errors import CheckpointError, mismatch
from qforensics.checkpoints._json import read_object
from qforensics.checkpoints._types import Array

__all__ = ["DTYPES", "FLOATS", "TensorFiles", "TensorInfo"]

#: safetensors' dtype names and NumPy's, for the types that any supported format stores.
DTYPES: Mapping[str, np.dtype[np.generic]] = {
    "F16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16), "F32": np.dtype(np.float32),
    "I32": np.dtype(np.int32), "I64": np.dtype(np.int64), "I8": np.dtype(np.int8), "U8": np.dtype(np.uint8),
}  # fmt: skip
FLOATS = ("F16", "BF16", "F32")

_BLOCK_BYTES = 8 << 20
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor is and what its header says."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


class TensorFiles:
    """All tensors of a checkpoint directory.

    Only headers are read here; no file stays open between calls (a mapping that stays open counts as memory).

    Parameters
    ----------
    directory
        Holds ``model.safetensors``, or shards and ``model.safetensors.index.json``.

    Raises
    ------
    CheckpointError
        No safetensors file (pickled weights are never opened), a broken header, tensors outside their file, a shard
        name that leaves the directory, an index that disagrees with the shards.
    """

    def __init__(self, directory: Path) -> None:
        index = directory / "model.safetensors.index.json"
        self.files = _shards(index) if index.exists() else _lone_files(directory)
        self.metadata: dict[str, str] = {}
        self.info: dict[str, TensorInfo] = {}
        for file in self.files:
            self._read_header(file)
        if index.exists():
            _check_index(index, self.info)

    def _read_header(self, file: Path) -> None:
        try:
            with safe_open(file, framework="np") as handle:
                self.metadata.update(handle.metadata() or {})
                for name in handle.keys():  # noqa: SIM118 (a handle is no dictionary)
                    if name in self.info:
                        raise mismatch(
                            file, name, expected="each tensor in one file", found=f"it also in {self.info[name].file}"
                        )
                    part = handle.get_slice(name)
                    self.info[name] = TensorInfo(file, str(part.get_dtype()), tuple(part.get_shape()))
        except (SafetensorError, OSError) as error:
            raise mismatch(file, "header", expected="a whole safetensors file", found=error) from None

    def __contains__(self, name: str) -> bool:
        return name in self.info

    def require(self, name: str, dtypes: Iterable[str], shape: tuple[int, ...] | None = None) -> TensorInfo:
        """Return what the header says of `name`; absent, or of another dtype or shape, is a `CheckpointError`."""
        info = self.info.get(name)
        if info is None:
            raise mismatch(self.files[0].parent, name, expected="a tensor", found="none of that name")
        if info.dtype not in dtypes:
            raise mismatch(info.file, name, expected=f"dtype {' or '.join(dtypes)}", found=info.dtype)
        if shape is not None and info.shape != shape:
            raise mismatch(info.file, name, expected=f"shape {list(shape)}", found=list(info.shape))
        return info

    def read(self, *names: str) -> list[Array]:
        """Read tensors whole; small ones of one file through one opening."""
        for name in names:
            self.require(name, DTYPES)
        large = {name: self._read_blocks(name) for name in names if self._bytes(name) > _BLOCK_BYTES}
        small = [name for name in names if name not in large]
        found: dict[str, Array] = {}
        for file in {self.info[name].file for name in small}:
            with _opened(file) as handle:
                found |= {name: handle.get_tensor(name) for name in small if self.info[name].file == file}
        for name, array in found.items():
            self._check(name, array, self.info[name].shape)
        return [large[name] if name in large else found[name] for name in names]

    def _read_blocks(self, name: str) -> Array:
        whole = np.empty(self.info[name].shape, DTYPES[self.info[name].dtype])
        at = 0
        for block in self._blocks(name):
            whole[at : at + len(block)] = block
            at += len(block)
        return whole

    def _blocks(self, name: str) -> Iterator[Array]:
        """Rows of a tensor, a few megabytes at a time, each through an opening of its own: the pages that safetensors
        maps count as memory of this process until the file is closed."""
        info = self.info[name]
        if not info.shape or self._bytes(name) <= _BLOCK_BYTES:
            yield self.read(name)[0]
            return
        rows = info.shape[0]
        step = max(1, _BLOCK_BYTES * rows // self._bytes(name))
        for first in range(0, rows, step):
            last = min(rows, first + step)
            with _opened(info.file) as handle:
                block = handle.get_slice(name)[first:last]
            self._check(name, block, (last - first, *info.shape[1:]))
            yield block

    def _bytes(self, name: str) -> int:
        info = self.info[name]
        return math.prod(info.shape) * DTYPES[info.dtype].itemsize

    def _check(self, name: str, array: Array, shape: tuple[int, ...]) -> None:
        expected = (DTYPES[self.info[name].dtype], shape)
        if (array.dtype, array.shape) != expected:
            raise mismatch(self.info[name].file, name, expected=expected, found=(array.dtype, array.shape))

    def bytes_on_disk(self) -> int:
        """Size of the files in bytes."""
        return sum(file.stat().st_size for file in self.files)

    def digest(self) -> str:
        """SHA-256 over the tensors by name: name, dtype and shape as text, then the bytes; independent of file
        layout."""
        total = hashlib.sha256()
        for name in sorted(self.info):
            info = self.require(name, DTYPES)
            total.update(f"{name}{DTYPES[info.dtype]}{info.shape}".encode())
            for block in self._blocks(name):
                total.update(np.ascontiguousarray(block).view(np.uint8).data)
        return total.hexdigest()


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="np") as handle:
            yield handle
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: changed or unreadable since it was opened: {error}") from None


def _lone_files(directory: Path) -> list[Path]:
    files = sorted(directory.glob("*.safetensors"))
    if len(files) == 1:
        return files
    if not files:
        pickled = sorted(p.name for pattern in _PICKLES for p in directory.glob(pattern))
        found = f"pickled weights, which are never opened: {', '.join(pickled[:3])}" if pickled else "none"
        raise mismatch(directory, "weights", expected="safetensors files", found=found)
    whole = [f for f in files if f.name == "model.safetensors"]
    if not whole:
        raise mismatch(
            directory,
            "weights",
            expected="model.safetensors or model.safetensors.index.json",
            found=f"{len(files)} other files",
        )
    return whole


def _weight_map(index: Path) -> dict[str, str]:
    mapping = read_object(index).get("weight_map")
    if not isinstance(mapping, dict) or not mapping or not all(isinstance(v, str) for v in mapping.values()):
        raise mismatch(index, "weight_map", expected="a non-empty object of file names", found=type(mapping).__name__)
    return mapping


def _shards(index: Path) -> list[Path]:
    present = {path.name for path in index.parent.iterdir() if path.is_file()}
    files = []
    for name in sorted(set(_weight_map(index).values())):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise mismatch(
                index, "weight_map", expected="names of safetensors files beside the index", found=repr(name)
            )
        if name not in present:
            raise mismatch(index, "weight_map", expected="files that exist", found=f"{name}, which does not")
        files.append(index.parent / name)
    return files


def _check_index(index: Path, info: Mapping[str, TensorInfo]) -> None:
    mapping = _weight_map(index)
    for name in mapping.keys() | info.keys():
        listed, actual = mapping.get(name), info[name].file.name if name in info else None
        if listed != actual:
            raise mismatch(
                index, name, expected=f"it in {actual}" if actual else "only tensors that the shards hold", found=listed
            )
