"""Writing large files: safetensors with one tensor in memory, and directories that appear whole or not at all."""

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from qforensics.checkpoints._tensor_files import DTYPES
from qforensics.checkpoints._types import Array

__all__ = ["SafetensorsWriter", "TensorSpec", "directory_that_appears_whole", "safetensors_name"]


@dataclass(frozen=True)
class TensorSpec:
    """A tensor to be written: name, safetensors dtype, shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return DTYPES[self.dtype].itemsize * int(np.prod(self.shape, dtype=np.int64))


def safetensors_name(dtype: np.dtype[np.generic]) -> str:
    """safetensors' name of a NumPy dtype."""
    for name, known in DTYPES.items():
        if known == dtype:
            return name
    raise TypeError(f"no safetensors dtype for {dtype}")


class SafetensorsWriter:
    """Writes one .safetensors file, tensors in any order, each exactly once.

    The `safetensors` package writes from a dictionary of all tensors; this one needs only the list of them, so that a
    model is quantized in the memory of one layer. Format: 8 bytes of header length, a JSON header, the data.

    Parameters
    ----------
    path
        File to create.
    specs
        All tensors; their order is the order in the file.
    metadata
        Strings for the header.
    """

    def __init__(self, path: Path, specs: Sequence[TensorSpec], metadata: Mapping[str, str]) -> None:
        header: dict[str, object] = {"__metadata__": dict(metadata)}
        self._places: dict[str, tuple[TensorSpec, int]] = {}
        position = 0
        # larger elements first keeps every tensor aligned to its element
        for spec in sorted(specs, key=lambda s: (-DTYPES[s.dtype].itemsize, s.name)):
            if spec.name in self._places:
                raise ValueError(f"{path}: {spec.name} is listed twice")
            header[spec.name] = {
                "dtype": spec.dtype,
                "shape": list(spec.shape),
                "data_offsets": [position, position + spec.size],
            }
            self._places[spec.name] = (spec, position)
            position += spec.size
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._start = 8 + len(text)
        self._path = path
        _require_space(path, self._start + position)
        self._stream = open(path, "xb")  # noqa: SIM115 (closed by __exit__)
        self._stream.write(len(text).to_bytes(8, "little") + text)

    def write(self, name: str, array: Array) -> None:
        """Write one tensor; its dtype and shape must be those announced."""
        spec, position = self._places[name]
        if array.dtype != DTYPES[spec.dtype] or array.shape != spec.shape:
            given = f"{array.dtype} {list(array.shape)}"
            raise ValueError(f"{self._path}: {name}: announced {spec.dtype} {list(spec.shape)}, given {given}")
        self._stream.seek(self._start + position)
        self._stream.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        del self._places[name]

    def __enter__(self) -> "SafetensorsWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        if kind is None and self._places:
            first = next(iter(self._places))
            raise ValueError(f"{self._path}: {len(self._places)} announced tensors were not written, {first} first")


def _require_space(path: Path, size: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < size:
        raise OSError(errno.ENOSPC, f"disk full: {size / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free", str(path))


def _remove_abandoned(parent: Path, prefix: str) -> None:
    """Remove what processes that no longer run left behind."""
    for stale in parent.glob(prefix + "*"):
        owner = stale.name.removeprefix(prefix)
        if owner.isdigit() and not Path(f"/proc/{owner}").exists() and Path("/proc/self").exists():
            shutil.rmtree(stale, ignore_errors=True)


@contextmanager
def directory_that_appears_whole(destination: Path) -> Iterator[Path]:
    """Yield a new directory beside `destination`, renamed to it on success and removed on failure.

    Raises
    ------
    FileExistsError
        `destination` exists.
    OSError
        The disk is full (ENOSPC, with the directory named), or not writable.
    """
    if destination.exists():
        raise FileExistsError(errno.EEXIST, "exists already", str(destination))
    destination.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{destination.name}.partial-"
    _remove_abandoned(destination.parent, prefix)
    partial = destination.parent / f"{prefix}{os.getpid()}"
    partial.mkdir()
    try:
        yield partial
        partial.rename(destination)
    except OSError as error:
        if error.errno == errno.ENOSPC and not str(error.strerror).startswith("disk full"):
            raise OSError(errno.ENOSPC, "disk full while writing", str(destination)) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
