"""AWQ checkpoints, AutoAWQ's "gemm" version. Layout: AutoAWQ, `awq/modules/linear/gemm.py`; keys: vLLM's `auto_awq.py`.

``qweight`` int32 [K, N/8], ``qzeros`` int32 [K/G, N/8], ``scales`` float16 [K/G, N]; nibble i of word c is column
``8 c + (0, 2, 4, 6, 1, 3, 5, 7)[i]``; zero points are stored as they are.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qforensics.checkpoints._bits import AWQ_ORDER, unpack_bits
from qforensics.checkpoints._config import ModelConfig
from qforensics.checkpoints._directory import PackedDirectory, group_rows
from qforensics.checkpoints._errors import mismatch
from qforensics.checkpoints._json import integer_field
from qforensics.checkpoints._types import QuantizedLinear

__all__ = ["AwqDirectory"]


class AwqDirectory(PackedDirectory):
    """Reader of AWQ (gemm) directories.

    Parameters
    ----------
    path
        Directory with config.json and safetensors files.
    config
        Its model configuration.
    quantization
        The ``quantization_config`` object: ``bits`` or ``w_bit`` (4), ``group_size`` or ``q_group_size``,
        ``zero_point`` (true), ``version`` ("gemm").

    Raises
    ------
    CheckpointError
        Any other version, width or symmetric form; shapes and dtypes that contradict the layout; scales not positive.
    """

    format = "awq"
    packed_suffix = ".qweight"

    def __init__(self, path: Path, config: ModelConfig, quantization: Mapping[str, Any]) -> None:
        file = path / "config.json"
        bits = integer_field({"bits": quantization.get("bits", quantization.get("w_bit"))}, "bits", file)
        if bits != 4:
            raise mismatch(file, "quantization_config.bits", expected=4, found=bits)
        version = str(quantization.get("version", "gemm")).lower()
        if version != "gemm":
            raise mismatch(file, "quantization_config.version", expected="'gemm'", found=repr(version))
        if quantization.get("zero_point", True) is not True:
            raise mismatch(
                file, "quantization_config.zero_point", expected="true", found=quantization.get("zero_point")
            )
        size = quantization.get("group_size", quantization.get("q_group_size"))
        self.group_size = -1 if size == -1 else integer_field({"group_size": size}, "group_size", file)
        super().__init__(path, config, {"method": "awq", "bits": 4, "group_size": self.group_size, "version": version})

    def _check_packed(self, name: str, n: int, k: int) -> None:
        info = self.files.require(name + ".qweight", ("I32",))
        if n % 8:
            raise mismatch(info.file, name, expected="N a multiple of 8", found=f"N = {n}")
        groups = group_rows(k, self.group_size, info.file, name)
        self.files.require(name + ".qweight", ("I32",), (k, n // 8))
        self.files.require(name + ".qzeros", ("I32",), (groups, n // 8))
        self.files.require(name + ".scales", ("F16",), (groups, n))

    def _read_packed(self, name: str, n: int, k: int) -> QuantizedLinear:
        words, zeros, scales = self.files.read(name + ".qweight", name + ".qzeros", name + ".scales")
        self._check_finite(name + ".scales", scales, positive=True)
        return QuantizedLinear(
            unpack_bits(words.view(np.int32), order=AWQ_ORDER),
            unpack_bits(zeros.view(np.int32), order=AWQ_ORDER),
            scales,
            group_size=self.group_size,
            bias=self._read_bias(name, n),
        )
