"""GPTQ checkpoints, v1 and v2, any row order. Layout: GPTQModel (AutoGPTQ's successor),
`nn_modules/qlinear/__init__.py`; what v1 and v2 store: `convert_gptq_v1_to_v2_format_module` there.

``qweight`` int32 [K bits/32, N] packed along K, ``qzeros`` int32 [K/G, N bits/32] packed along N, ``scales`` float16
[K/G, N], ``g_idx`` int32 [K]. v1 stores zero - 1, v2 stores zero.
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

__all__ = ["GptqDirectory"]

_FORMATS = {"gptq": 1, "gptq_v2": 0}  # what a reader adds to the stored zero


class GptqDirectory(PackedDirectory):
    """Reader of GPTQ directories.

    Parameters
    ----------
    path
        Directory with config.json and safetensors files.
    config
        Its model configuration.
    quantization
        The ``quantization_config`` object: ``bits``, ``group_size``, ``sym``, ``desc_act``, ``checkpoint_format`` or
        ``format`` ("gptq" where absent, which the zeros of a symmetric checkpoint then confirm).

    Raises
    ------
    CheckpointError
        Other formats; ``dynamic`` overrides; zeros that contradict ``sym``; a v1 zero that wrapped around; a g_idx
        out of range, with unequal groups, or not k // G while ``desc_act`` is false; shapes and dtypes that
        contradict the layout.
    """

    format = "gptq"
    packed_suffix = ".qweight"

    def __init__(self, path: Path, config: ModelConfig, quantization: Mapping[str, Any]) -> None:
        file = path / "config.json"
        self.bits = integer_field(quantization, "bits", file)
        if self.bits not in (2, 3, 4, 8):
            raise mismatch(file, "quantization_config.bits", expected="2, 3, 4 or 8", found=self.bits)
        stated = quantization.get("checkpoint_format", quantization.get("format", "gptq"))
        stated = choice(stated, _FORMATS, file, "quantization_config.checkpoint_format")
        if quantization.get("dynamic"):
            raise mismatch(
                file, "quantization_config.dynamic", expected="no per-layer overrides", found=quantization["dynamic"]
            )
        self.zero_offset = _FORMATS[stated]
        self.symmetric = flag(quantization, "sym", file, default=False)
        self.act_order = flag(quantization, "desc_act", file, default=False)
        size = quantization.get("group_size")
        self.group_size = -1 if size == -1 else integer_field(quantization, "group_size", file)
        record = {"method": "gptq", "bits": self.bits, "group_size": self.group_size, "sym": self.symmetric}
        super().__init__(path, config, {**record, "desc_act": self.act_order, "checkpoint_format": stated})

    def _check_packed(self, name: str, n: int, k: int) -> None:
        info = self.files.require(name + ".qweight", ("I32",))
        if k % 32 or n % 8 or n * self.bits % 32:
            raise mismatch(
                info.file, name, expected="K a multiple of 32, N of 8 and whole words", found=f"K = {k}, N = {n}"
            )
        groups = group_rows(k, self.group_size, info.file, name)
        self.files.require(name + ".qweight", ("I32",), (k * self.bits // 32, n))
        self.files.require(name + ".qzeros", ("I32",), (groups, n * self.bits // 32))
        self.files.require(name + ".scales", ("F16",), (groups, n))
        if self.act_order or name + ".g_idx" in self.files:
            self.files.require(name + ".g_idx", ("I32",), (k,))

    def _read_packed(self, name: str, n: int, k: int) -> QuantizedLinear:
        words, zeros, scales = self.files.read(name + ".qweight", name + ".qzeros", name + ".scales")
        self._check_finite(name + ".scales", scales)
        return QuantizedLinear(
            _unpack_rows(words.view(np.int32), self.bits),
            self._zeros(name, zeros.view(np.int32)),
            scales,
            group_size=self.group_size,
            group_index=self._group_index(name, k),
            bias=self._read_bias(name, n),
            bits=self.bits,
        )

    def _zeros(self, name: str, words: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
        stored = unpack_bits(words, self.bits)
        file, tensor = self.files.info[name + ".qzeros"].file, name + ".qzeros"
        centre = (1 << (self.bits - 1)) - self.zero_offset
        if self.symmetric and (stored != centre).any():
            wrong = int(stored[stored != centre][0])
            raise mismatch(
                file, tensor, expected=f"{centre} everywhere (sym is true, format v{2 - self.zero_offset})", found=wrong
            )
        if self.zero_offset and (stored == (1 << self.bits) - 1).any():
            raise mismatch(
                file, tensor, expected=f"v1 zeros below {(1 << self.bits) - 1}", found="one that wrapped around"
            )
        return stored + np.uint8(self.zero_offset)

    def _group_index(self, name: str, k: int) -> npt.NDArray[np.int32] | None:
        if name + ".g_idx" not in self.files:
            return None
        index = self.files.read(name + ".g_idx")[0].view(np.int32)
        file, size = self.files.info[name + ".g_idx"].file, k if self.group_size == -1 else self.group_size
        self._check_groups(name + ".g_idx", index, size)
        if np.array_equal(index, np.arange(k) // size):
            return None
        if not self.act_order:
            raise mismatch(file, name + ".g_idx", expected="k // group_size (desc_act is false)", found="another order")
        return index


def _unpack_rows(words: npt.NDArray[np.int32], bits: int) -> npt.NDArray[np.uint8]:
    """int32 [K bits/32, N], packed along K -> uint8 [K, N]."""
    if bits == 4:
        octets = np.ascontiguousarray(words).view(np.uint8).reshape(*words.shape, 4)
        result = np.empty((words.shape[0], 8, words.shape[1]), np.uint8)
        for byte in range(4):
            result[:, 2 * byte] = octets[..., byte] & 15
            result[:, 2 * byte + 1] = octets[..., byte] >> 4
        return result.reshape(-1, words.shape[1])
    return np.ascontiguousarray(unpack_bits(np.ascontiguousarray(words.T), bits).T)
