"""Readers of checkpoints on disk, whatever the format; weights come out as codes, zero points and scales."""

from qforensics.checkpoints._base import Checkpoint
from qforensics.checkpoints._config import ModelConfig
from qforensics.checkpoints._errors import CheckpointError
from qforensics.checkpoints._load import load
from qforensics.checkpoints._types import DenseLinear, QuantizedLinear

__all__ = ["Checkpoint", "CheckpointError", "DenseLinear", "ModelConfig", "QuantizedLinear", "load"]
