"""compressed-tensors checkpoints, "pack-quantized". Layout: the compressed-tensors library,
`compressors/quantized_compressors/pack_quantized.py`; settings: its `quantization/quant_args.py`.

``weight_packed`` int32 [N, K bits/32] along K, signed values with ``2**(bits-1)`` added; ``weight_scale`` [N, K/G];
asymmetric: ``weight_zero_point`` int32 [N bits/32, K/G] along N, with the same addition; ``weight_g_idx`` [K] where
``actorder`` is "group" or its alias "dynamic"; ``weight_shape`` [2].
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qforensics.checkpoints._bits import unpack_bits
from qforensics.checkpoints._config import ModelConfig
from qforensics.checkpoints._directory import PackedDirectory, group_rows
from qforensics.checkpoints._errors import mismatch
from qforensics.checkpoints._json import choice, flag, integer_field
from qforensics.checkpoints._types import QuantizedLinear

__all__ = ["CompressedTensorsDirectory"]

_SCALES = ("F16", "BF16")
_ORDERS = {"group": True, "dynamic": True, "weight": False, "static": False}  # whether there is a group index


def _weight_scheme(quantization: Mapping[str, Any], file: Path) -> Mapping[str, Any]:
    """The one weight scheme of the configuration."""
    form = quantization.get("format")
    if form != "pack-quantized":
        raise mismatch(file, "quantization_config.format", expected="'pack-quantized'", found=repr(form))
    groups = quantization.get("config_groups")
    if not isinstance(groups, dict) or len(groups) != 1:
        raise mismatch(file, "quantization_config.config_groups", expected="one group", found=groups)
    scheme = next(iter(groups.values()))
    weights = scheme.get("weights") if isinstance(scheme, dict) else None
    if not isinstance(weights, dict):
        raise mismatch(file, "quantization_config.config_groups", expected="an object with weights", found=scheme)
    if scheme.get("input_activations") is not None:
        raise mismatch(file, "input_activations", expected="null (weights only)", found=scheme["input_activations"])
    if weights.get("type", "int") != "int":
        raise mismatch(file, "weights.type", expected="'int'", found=repr(weights.get("type")))
    return weights


def _act_order(value: object, file: Path) -> bool:
    """Whether the rows have an order of their own; true, false and null are what older files say."""
    if value is None or isinstance(value, bool):
        return bool(value)
    return _ORDERS[choice(value, _ORDERS, file, "weights.actorder")]


class CompressedTensorsDirectory(PackedDirectory):
    """Reader of pack-quantized directories (W4A16, W8A16).

    Parameters
    ----------
    path
        Directory with config.json and safetensors files.
    config
        Its model configuration.
    quantization
        The ``quantization_config`` object.

    Raises
    ------
    CheckpointError
        Another format, several schemes, quantized activations, other widths or strategies; tensors that contradict
        them.
    """

    format = "compressed-tensors"
    packed_suffix = ".weight_packed"

    def __init__(self, path: Path, config: ModelConfig, quantization: Mapping[str, Any]) -> None:
        file = path / "config.json"
        weights = _weight_scheme(quantization, file)
        self.bits = integer_field(weights, "num_bits", file)
        if self.bits not in (4, 8):
            raise mismatch(file, "weights.num_bits", expected="4 or 8", found=self.bits)
        strategy = weights.get("strategy", "group")
        if strategy not in ("group", "channel"):
            raise mismatch(file, "weights.strategy", expected="'group' or 'channel'", found=repr(strategy))
        whole = strategy == "channel" or weights.get("group_size") == -1
        self.group_size = -1 if whole else integer_field(weights, "group_size", file)
        self.symmetric = flag(weights, "symmetric", file, default=True)
        self.act_order = _act_order(weights.get("actorder"), file)
        record = {"method": self.format, "bits": self.bits, "group_size": self.group_size, "sym": self.symmetric}
        super().__init__(path, config, {**record, "actorder": weights.get("actorder")})

    def _check_packed(self, name: str, n: int, k: int) -> None:
        info = self.files.require(name + ".weight_packed", ("I32",))
        per_word = 32 // self.bits
        if k % per_word or (not self.symmetric and n % per_word):
            raise mismatch(info.file, name, expected=f"K and N multiples of {per_word}", found=f"K = {k}, N = {n}")
        groups = group_rows(k, self.group_size, info.file, name)
        self.files.require(name + ".weight_packed", ("I32",), (n, k // per_word))
        self.files.require(name + ".weight_scale", _SCALES, (n, groups))
        self.files.require(name + ".weight_shape", ("I64", "I32"), (2,))
        if not self.symmetric:
            self.files.require(name + ".weight_zero_point", ("I32",), (n // per_word, groups))
        elif name + ".weight_zero_point" in self.files:
            raise mismatch(info.file, name, expected="no weight_zero_point (symmetric is true)", found="one")
        if self.act_order:
            self.files.require(name + ".weight_g_idx", ("I32",), (k,))

    def _read_packed(self, name: str, n: int, k: int) -> QuantizedLinear:
        words, scales, shape = self.files.read(name + ".weight_packed", name + ".weight_scale", name + ".weight_shape")
        if list(shape) != [n, k]:
            file = self.files.info[name + ".weight_shape"].file
            raise mismatch(file, name + ".weight_shape", expected=[n, k], found=shape.tolist())
        self._check_finite(name + ".weight_scale", scales)
        groups = scales.shape[1]
        if self.symmetric:
            zeros: npt.NDArray[np.uint8] = np.full((groups, n), 1 << (self.bits - 1), np.uint8)
        else:
            packed = self.files.read(name + ".weight_zero_point")[0].view(np.int32)
            zeros = unpack_bits(np.ascontiguousarray(packed.T), self.bits)
        index: npt.NDArray[np.int32] | None = None
        if self.act_order:
            index = self.files.read(name + ".weight_g_idx")[0].view(np.int32)
            self._check_groups(name + ".weight_g_idx", index, k // groups)
        return QuantizedLinear(
            np.ascontiguousarray(unpack_bits(words.view(np.int32), self.bits).T),
            zeros,
            np.ascontiguousarray(scales.T),
            group_size=self.group_size,
            group_index=index,
            bias=self._read_bias(name, n),
            bits=self.bits,
        )
