"""From a path or a hub id to a `Checkpoint`: the format is read off the files."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qforensics.checkpoints._awq import AwqDirectory
from qforensics.checkpoints._base import Checkpoint
from qforensics.checkpoints._compressed_tensors import CompressedTensorsDirectory
from qforensics.checkpoints._config import ModelConfig
from qforensics.checkpoints._directory import DenseDirectory
from qforensics.checkpoints._errors import CheckpointError, mismatch
from qforensics.checkpoints._gguf import GgufFile
from qforensics.checkpoints._gptq import GptqDirectory
from qforensics.checkpoints._json import read_object
from qforensics.checkpoints._openvino import OpenvinoDirectory
from qforensics.checkpoints._torchao import TorchaoDirectory

__all__ = ["load"]

_READERS: dict[str, Callable[[Path, ModelConfig, dict[str, Any]], Checkpoint]] = {
    "awq": AwqDirectory,
    "gptq": GptqDirectory,
    "compressed-tensors": CompressedTensorsDirectory,
    "torchao": TorchaoDirectory,
}
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_HUB_FILES = ("*.json", "*.safetensors", "*.gguf", "openvino_model.*", "*.jinja", "*.model")


def load(source: str | Path, *, revision: str | None = None) -> Checkpoint:
    """Open a checkpoint.

    Parameters
    ----------
    source
        A directory, a .gguf file, or a hub id (``'org/name'``) where nothing local has that name.
    revision
        Branch, tag or commit of the hub repository. The commit it resolves to is kept in `Checkpoint.revision`.

    Returns
    -------
    Checkpoint
        Headers are read and checked; weights are read when asked for.

    Raises
    ------
    CheckpointError
        Nothing there, an unknown format, pickled weights, or files that contradict their format.

    Examples
    --------
    >>> checkpoint = load("checkpoints/SmolLM2-AWQ")  # doctest: +SKIP
    >>> checkpoint.linear("model.layers.0.mlp.up_proj").codes.shape  # doctest: +SKIP
    (768, 1536)
    """
    path = Path(source)
    if path.exists():
        if revision is not None:
            raise ValueError(f"revision {revision!r} belongs to a hub id, and {path} is a local path")
        return _open_local(path)
    if isinstance(source, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not source.startswith("."):
        local, commit = _download(source, revision)
        checkpoint = _open_local(local)
        checkpoint.revision = commit
        return checkpoint
    raise CheckpointError(f"{source}: expected a directory, a .gguf file or a hub id, found none of them")


def _open_local(path: Path) -> Checkpoint:
    if path.is_file():
        if path.suffix == ".gguf":
            return GgufFile(path)
        if path.suffix in _PICKLE_SUFFIXES:
            raise mismatch(path, "format", expected="safetensors or GGUF", found="a pickle, which is never opened")
        raise mismatch(
            path, "format", expected="a directory or a .gguf file", found=f"a {path.suffix or 'nameless'} file"
        )
    if not (path / "config.json").is_file():
        lone = sorted(path.glob("*.gguf"))
        if len(lone) == 1:
            return GgufFile(lone[0])
        raise mismatch(path, "config.json", expected="a file", found=f"{len(lone)} GGUF files" if lone else "none")
    data = read_object(path / "config.json")
    if (path / "openvino_model.xml").is_file():
        return OpenvinoDirectory(path, ModelConfig.from_hf(data, path / "config.json"))
    return _open_safetensors(path, data)


def _open_safetensors(path: Path, data: dict[str, Any]) -> Checkpoint:
    config = ModelConfig.from_hf(data, path / "config.json")
    file, quantization = path / "config.json", data.get("quantization_config")
    if quantization is None:
        for name in ("quantize_config.json", "quant_config.json"):
            if (path / name).is_file():
                file, quantization = path / name, read_object(path / name)
                quantization.setdefault(
                    "quant_method", "awq" if "w_bit" in quantization or "zero_point" in quantization else "gptq"
                )
                break
        else:
            return DenseDirectory(path, config)
    if not isinstance(quantization, dict):
        raise mismatch(file, "quantization_config", expected="an object", found=type(quantization).__name__)
    method = quantization.get("quant_method")
    reader = _READERS.get(method) if isinstance(method, str) else None
    if reader is None:
        raise mismatch(file, "quant_method", expected=" or ".join(_READERS), found=repr(method))
    return reader(path, config, quantization)


def _download(repository: str, revision: str | None) -> tuple[Path, str]:
    """Fetch a hub repository's weights and settings at one commit."""
    try:
        from huggingface_hub import HfApi, snapshot_download
    except ImportError:
        raise CheckpointError(
            f"{repository}: not a local path, and huggingface_hub, which a hub id needs, is not installed"
        ) from None
    try:
        commit = HfApi().model_info(repository, revision=revision).sha
        if commit is None:
            raise CheckpointError(f"{repository}: the hub named no commit for revision {revision!r}")
        folder = snapshot_download(repository, revision=commit, allow_patterns=list(_HUB_FILES))
    except CheckpointError:
        raise
    except Exception as error:  # the network's errors have no common class
        raise CheckpointError(f"{repository}: not a local path, and the hub gave: {error}") from None
    return Path(folder), commit
