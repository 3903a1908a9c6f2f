"""Quantizers and writers: round to nearest into AWQ, GPTQ, compressed-tensors, torchao and OpenVINO directories."""

from qforensics.quantize._pack import pack_awq, pack_compressed_tensors, pack_gptq, pack_torchao
from qforensics.quantize._progress import Progress
from qforensics.quantize._quantize import quantize_checkpoint
from qforensics.quantize._round_to_nearest import METHODS, awq, compressed_tensors, gptq, openvino, pytorch_int4

__all__ = [
    "METHODS",
    "Progress",
    "awq",
    "compressed_tensors",
    "gptq",
    "openvino",
    "pack_awq",
    "pack_compressed_tensors",
    "pack_gptq",
    "pack_torchao",
    "pytorch_int4",
    "quantize_checkpoint",
]
