"""torchao INT4 checkpoints, tile-packed, in safetensors. Layout: torchao's
`Int4TilePackedTo4dTensor` and its `prototype/safetensors`; words: PyTorch's `aten/src/ATen/native/cuda/int4mm.cu`.

``<module>._weight_qdata`` int32 [N/8, K/128, 32, 4] and ``<module>._weight_scale_and_zero`` bfloat16 [K/G, N, 2]; the
file's metadata holds, per tensor, a JSON object with ``_type``, ``_data.block_size`` and ``_data.shape``. K is padded
to a multiple of 1024 and N of 8; the padding is dropped here. Weight = (code - 8) * scale + zero, zero a float.

Lane l of a tile holds column ``l // 4`` and, of two adjacent k16 tiles, rows ``2 (l % 4) + (0, 1, 8, 9, 16, 17, 24,
25)``; nibble i of its word is entry ``(0, 2, 4, 6, 1, 3, 5, 7)[i]`` of that list. Run on an H200 with torch 2.11:
``aten::_convert_weight_to_int4pack`` gives these words, and ``aten::_weight_int4pack_mm`` of the identity bf16(weight).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from qforensics.checkpoints._bits import AWQ_ORDER, pack_bits, unpack_bits
from qforensics.checkpoints._config import ModelConfig
from qforensics.checkpoints._directory import PackedDirectory
from qforensics.checkpoints._errors import mismatch
from qforensics.checkpoints._json import parse_object
from qforensics.checkpoints._types import QuantizedLinear

__all__ = ["TorchaoDirectory", "pack_tiles", "padded_features", "unpack_tiles"]

_TYPE = "Int4TilePackedTo4dTensor"


def padded_features(n: int, k: int) -> tuple[int, int]:
    """N and K as torchao stores them: multiples of 8 and 1024."""
    return -n % 8 + n, -k % 1024 + k


def unpack_tiles(words: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    """Unpack int32 [N/8, K/128, 32, 4] into codes uint8 [K, N]."""
    n8, k128 = words.shape[:2]
    values = unpack_bits(words, order=AWQ_ORDER).reshape(n8, k128, 8, 4, 4, 2, 2, 2)
    # axes: n tile, k tile, column, quarter (l % 4), word, k16 of the pair, half of the k16, parity
    return np.ascontiguousarray(values.transpose(1, 4, 5, 6, 3, 7, 0, 2)).reshape(k128 * 128, n8 * 8)


def pack_tiles(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
    """Inverse of `unpack_tiles`; K a multiple of 128, N of 8."""
    k, n = codes.shape
    values = codes.reshape(k // 128, 4, 2, 2, 4, 2, n // 8, 8).transpose(6, 0, 7, 4, 1, 2, 3, 5)
    return pack_bits(np.ascontiguousarray(values).reshape(n // 8, k // 128, 32, 32), order=AWQ_ORDER)


class TorchaoDirectory(PackedDirectory):
    """Reader of torchao directories; only tile-packed INT4, and no pickle.

    Parameters
    ----------
    path
        Directory with config.json and safetensors files.
    config
        Its model configuration.
    quantization
        The ``quantization_config`` object (recorded; the tensors' own metadata decide).

    Raises
    ------
    CheckpointError
        Another tensor class, metadata that contradict the shapes, groups that do not divide K.
    """

    format = "torchao"
    packed_suffix = "._weight_qdata"

    def __init__(self, path: Path, config: ModelConfig, quantization: Mapping[str, Any]) -> None:
        self._groups: dict[str, int] = {}
        super().__init__(path, config, {"method": "torchao", "bits": 4})
        sizes = set(self._groups.values())
        self.quantization["group_size"] = sizes.pop() if len(sizes) == 1 else sorted(sizes)

    def _check_packed(self, name: str, n: int, k: int) -> None:
        info = self.files.require(name + "._weight_qdata", ("I32",))
        text = self.files.metadata.get(name + ".weight")
        if text is None:
            raise mismatch(info.file, name + ".weight", expected="its metadata entry", found="none")
        entry = parse_object(text, info.file, f"metadata of {name}.weight")
        data = entry.get("_data")
        if entry.get("_type") != _TYPE or not isinstance(data, dict):
            raise mismatch(info.file, name + ".weight", expected=_TYPE, found=repr(entry.get("_type")))
        if data.get("shape") not in (None, [n, k]):
            raise mismatch(info.file, name + ".weight", expected=f"shape {[n, k]}", found=data["shape"])
        if name + "._weight_act_pre_scale" in self.files:
            raise mismatch(info.file, name, expected="no act_pre_scale", found="one")
        n_stored, k_stored = padded_features(n, k)
        block = data.get("block_size")
        size = block[1] if isinstance(block, list) and len(block) == 2 and block[0] == 1 else None
        if isinstance(size, bool) or not isinstance(size, int) or size < 1 or k % size or k_stored % size:
            raise mismatch(info.file, name + ".weight", expected=f"block_size [1, divisor of K = {k}]", found=block)
        self.files.require(name + "._weight_qdata", ("I32",), (n_stored // 8, k_stored // 128, 32, 4))
        self.files.require(name + "._weight_scale_and_zero", ("BF16",), (k_stored // size, n_stored, 2))
        self._groups[name] = size

    def _read_packed(self, name: str, n: int, k: int) -> QuantizedLinear:
        words, pairs = self.files.read(name + "._weight_qdata", name + "._weight_scale_and_zero")
        size = self._groups[name]
        pairs = pairs[: k // size, :n]
        self._check_finite(name + "._weight_scale_and_zero", pairs)
        return QuantizedLinear(
            np.ascontiguousarray(unpack_tiles(words.view(np.int32))[:k, :n]),
            np.full((k // size, n), 8, np.uint8),
            np.ascontiguousarray(pairs[..., 0]).view(ml_dtypes.bfloat16),
            group_size=size,
            offsets=np.ascontiguousarray(pairs[..., 1].astype(np.float32)),
            bias=self._read_bias(name, n),
        )
