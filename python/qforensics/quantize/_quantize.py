"""A quantized checkpoint from another checkpoint, one layer in memory at a time."""

import difflib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from qforensics.checkpoints import Checkpoint, load
from qforensics.checkpoints._json import read_object
from qforensics.checkpoints._tensor_files import DTYPES
from qforensics.quantize._dense import cast, dense_weight
from qforensics.quantize._openvino_writer import write_openvino
from qforensics.quantize._pack import CONTAINERS, Container, torchao_metadata
from qforensics.quantize._progress import Progress
from qforensics.quantize._round_to_nearest import METHODS
from qforensics.quantize._writer import SafetensorsWriter, TensorSpec, directory_that_appears_whole, safetensors_name

__all__ = ["quantize_checkpoint"]

_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "generation_config.json", "chat_template.jinja", "chat_template.json",
)  # fmt: skip


def quantize_checkpoint(
    source: str | Path | Checkpoint,
    destination: str | Path,
    *,
    method: str,
    group_size: int = 128,
    progress: Progress | None = None,
) -> Checkpoint:
    """Quantize a checkpoint by round to nearest and write it as a directory.

    Parameters
    ----------
    source
        A checkpoint, or what `load` takes. Weights are read as the destination's dense dtype (float16; bfloat16 for
        ``'pytorch_int4'``) before they are quantized; an already quantized source is dequantized first.
    destination
        Directory to create. It appears when it is complete; a failure leaves nothing.
    method
        ``'awq'``, ``'gptq'``, ``'compressed-tensors'``, ``'pytorch_int4'`` (torchao, tile-packed) or ``'openvino'``.
    group_size
        Rows of K that share a scale, or -1 for all of them.
    progress
        See `Progress`.

    Returns
    -------
    Checkpoint
        The new directory, opened (and so checked).

    Raises
    ------
    ValueError
        An unknown method, or a group size that does not divide some layer's K.
    FileExistsError
        `destination` exists.
    OSError
        ENOSPC: the disk is or would be full; the message says how much is needed.
    CheckpointError
        From reading `source`, or a value that does not fit the destination's dtype.
    """
    _check_method(method)
    checkpoint = source if isinstance(source, Checkpoint) else load(source)
    _check_group_size(checkpoint, group_size)
    with directory_that_appears_whole(Path(destination)) as partial:
        if method == "openvino":
            write_openvino(checkpoint, partial, group_size, progress)
            settings, dtype = None, "float16"
        else:
            container = CONTAINERS[method]
            _write_safetensors(checkpoint, partial / "model.safetensors", method, container, group_size, progress)
            settings, dtype = container.settings(group_size), str(DTYPES[container.dense_dtype])
        _write_settings(checkpoint, partial, settings, dtype)
    return load(destination)


def _check_method(method: str) -> None:
    if method not in METHODS:
        close = difflib.get_close_matches(method, METHODS, n=2, cutoff=0.4)
        raise ValueError(
            f"unknown method {method!r}: {', '.join(METHODS)}"
            + (f"; did you mean {' or '.join(close)}?" if close else "")
        )


def _check_group_size(checkpoint: Checkpoint, group_size: int) -> None:
    for name, (_, k) in checkpoint.config.linear_shapes():
        if name != "lm_head" and group_size != -1 and (group_size < 1 or k % group_size):
            raise ValueError(f"{checkpoint.path}: {name}: group size {group_size} does not divide K = {k}")


def _write_safetensors(
    checkpoint: Checkpoint, path: Path, method: str, container: Container, group_size: int, progress: Progress | None
) -> None:
    dense = DTYPES[container.dense_dtype]
    head = [] if checkpoint.config.tie_embeddings else ["lm_head"]
    layers = [name for name in checkpoint.linear_names if name != "lm_head"]
    shapes = dict(checkpoint.config.linear_shapes())
    specs = [TensorSpec(name, container.dense_dtype, shape) for name, shape in checkpoint.config.tensor_shapes()]
    specs += [TensorSpec(name + ".weight", container.dense_dtype, shapes[name]) for name in head]
    metadata = {"format": "pt"}
    if method == "pytorch_int4":
        sizes = {name: shapes[name][1] if group_size == -1 else group_size for name in layers}
        metadata |= torchao_metadata({name: shapes[name] for name in layers}, [spec.name for spec in specs], sizes)
    packed = {
        shape: container.pack(METHODS[method](np.zeros(shape, np.float16), group_size))
        for shape in {shapes[n] for n in layers}
    }
    specs += [
        TensorSpec(f"{n}.{part}", safetensors_name(a.dtype), a.shape)
        for n in layers
        for part, a in packed[shapes[n]].items()
    ]
    del packed
    with SafetensorsWriter(path, specs, metadata) as writer:
        for name in checkpoint.names:
            writer.write(name, cast(checkpoint.tensor(name), dense, f"{checkpoint.path}: {name}"))
        for name in head:
            writer.write(name + ".weight", dense_weight(checkpoint, name, dense))
        for done, name in enumerate(layers):
            if progress is not None:
                progress(method, done, len(layers))
            quantized = METHODS[method](dense_weight(checkpoint, name, dense), group_size)
            for part, array in container.pack(quantized).items():
                writer.write(f"{name}.{part}", array)
    if progress is not None:
        progress(method, len(layers), len(layers))


def _write_settings(checkpoint: Checkpoint, destination: Path, quantization: dict[str, Any] | None, dtype: str) -> None:
    """Write config.json, and copy the tokenizer's files from the source where it is a directory."""
    original = checkpoint.path / "config.json"
    data = read_object(original) if original.is_file() else checkpoint.config.to_hf()
    for key in ("quantization_config", "torch_dtype"):
        data.pop(key, None)
    data["dtype"] = dtype
    if quantization is not None:
        data["quantization_config"] = quantization
    (destination / "config.json").write_text(json.dumps(data, indent=1) + "\n")
    for name in _TOKENIZER_FILES:
        if (checkpoint.path / name).is_file():
            shutil.copyfile(checkpoint.path / name, destination / name)
