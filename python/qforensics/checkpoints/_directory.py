"""What the safetensors formats share: a directory with config.json, dense tensors beside packed ones."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qforensics.checkpoints._base import Checkpoint
from qforensics.checkpoints._config import ModelConfig
from qforensics.checkpoints._errors import mismatch
from qforensics.checkpoints._tensor_files import FLOATS, TensorFiles
from qforensics.checkpoints._types import Array, DenseLinear, QuantizedLinear

__all__ = ["DenseDirectory", "PackedDirectory", "group_rows"]


def group_rows(k: int, group_size: int, file: Path, name: str) -> int:
    """Number of groups of a layer with K rows; raises `CheckpointError` unless the group size divides K."""
    if group_size == -1:
        return 1
    if k % group_size:
        raise mismatch(file, name, expected=f"K a multiple of the group size {group_size}", found=f"K = {k}")
    return k // group_size


class DenseDirectory(Checkpoint):
    """A plain Hugging Face checkpoint: float16, bfloat16 or float32 weights.

    Parameters
    ----------
    path
        Directory with config.json and safetensors files.
    config
        Its configuration.
    """

    format = "hf"

    def __init__(self, path: Path, config: ModelConfig, quantization: Mapping[str, Any] | None = None) -> None:
        self.files = TensorFiles(path)
        super().__init__(path, config, quantization or {})

    def _stored_names(self) -> Iterable[str]:
        return self.files.info

    def _check_tensor(self, name: str, shape: tuple[int, ...]) -> None:
        self.files.require(name, FLOATS, shape)

    def _check_linear(self, name: str, n: int, k: int) -> None:
        self.files.require(name + ".weight", FLOATS, (n, k))

    def _read_tensor(self, name: str) -> Array:
        return self.files.read(name)[0]

    def _read_linear(self, name: str, n: int, k: int) -> QuantizedLinear | DenseLinear:
        return DenseLinear(self.files.read(name + ".weight")[0], self._read_bias(name, n))

    def _read_bias(self, name: str, n: int) -> Array | None:
        if name + ".bias" not in self.files:
            return None
        self.files.require(name + ".bias", FLOATS, (n,))
        return self.files.read(name + ".bias")[0]

    @property
    def bytes_on_disk(self) -> int:
        """Size of the safetensors files in bytes."""
        return self.files.bytes_on_disk()

    def _weight_files(self) -> Iterable[Path]:
        return self.files.files

    def _read_digest(self) -> str:
        """SHA-256 (hex) over all tensors by name, whatever the sharding."""
        return self.files.digest()


class PackedDirectory(DenseDirectory):
    """A directory where a layer is packed if its packed tensor is there, and dense if its ``.weight`` is; never both.

    Subclasses say what marks a packed layer and read it.
    """

    packed_suffix: str

    @abstractmethod
    def _check_packed(self, name: str, n: int, k: int) -> None:
        """Raise unless the headers hold the packed layer in that shape and fitting dtypes."""

    @abstractmethod
    def _read_packed(self, name: str, n: int, k: int) -> QuantizedLinear:
        """Read a layer that passed `_check_packed`."""

    def _check_finite(self, name: str, values: Array, *, positive: bool = False) -> None:
        """Raise unless all values of the tensor are finite, and positive where a format wants that."""
        exact = values.astype(np.float32)
        bad = ~(np.isfinite(exact) & (exact > 0)) if positive else ~np.isfinite(exact)
        if bad.any():
            place = tuple(int(i) for i in np.argwhere(bad)[0])
            expected = "finite, positive values" if positive else "finite values"
            found = f"{exact[place]} at {list(place)}"
            raise mismatch(self.files.info[name].file, name, expected=expected, found=found)

    def _check_groups(self, name: str, index: npt.NDArray[np.int32], size: int) -> None:
        """Raise unless the group index names the groups 0 .. K/size - 1, each for `size` rows."""
        file, groups = self.files.info[name].file, index.size // size
        low, high = int(index.min()), int(index.max())
        if low < 0 or high >= groups:
            raise mismatch(file, name, expected=f"groups in 0..{groups - 1}", found=f"{low}..{high}")
        counts = np.bincount(index, minlength=groups)
        if (counts != size).any():
            group = int(np.argmax(counts != size))
            raise mismatch(
                file, name, expected=f"{size} rows in every group", found=f"{counts[group]} in group {group}"
            )

    def _is_packed(self, name: str) -> bool:
        return name + self.packed_suffix in self.files

    def _check_linear(self, name: str, n: int, k: int) -> None:
        if not self._is_packed(name):
            super()._check_linear(name, n, k)
            return
        if name + ".weight" in self.files:
            file = self.files.info[name + ".weight"].file
            raise mismatch(
                file, name, expected="packed or dense weights", found=f"both {self.packed_suffix} and .weight"
            )
        self._check_packed(name, n, k)

    def _read_linear(self, name: str, n: int, k: int) -> QuantizedLinear | DenseLinear:
        return self._read_packed(name, n, k) if self._is_packed(name) else super()._read_linear(name, n, k)
