"""Files, configurations and indices of a safetensors directory that cannot be what they claim are refused by name."""

import dataclasses
import json
import struct

import numpy as np
import pytest

from checkpoint_files import CONFIG, dense_tensors, refused, write_directory
from qforensics.checkpoints import CheckpointError, load


@pytest.fixture
def dense(tmp_path):
    return write_directory(tmp_path / "m", CONFIG, dense_tensors(CONFIG))


def test_truncated_oversized_and_broken_files(dense):
    file = dense / "model.safetensors"
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    for broken in (b"", data[:5], data[: length // 2], data[:-1], data + b"\0", data + data, b"\xff" * 64):
        file.write_bytes(broken)
        refused(dense, "header: expected a whole safetensors file")
    file.write_bytes(struct.pack("<Q", 2**62) + data[8:])
    refused(dense, "header: expected a whole safetensors file")
    header = json.loads(data[8 : 8 + length])
    header["model.norm.weight"]["data_offsets"] = [10**12, 10**12 + 256]
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    refused(dense, "header: expected a whole safetensors file")


def test_file_that_changes_after_opening(dense):
    checkpoint = load(dense)
    file = dense / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="changed or unreadable since it was opened"):
        checkpoint.tensor("model.norm.weight")


@pytest.mark.parametrize(("name", "value", "message"), [
    ("model.norm.weight", None, "model.norm.weight: expected a tensor"),
    ("model.norm.weight", np.zeros(127, np.float16), r"model.norm.weight: expected shape \[128\], found \[127\]"),
    ("model.norm.weight", np.zeros(128, np.int32), "expected dtype F16 or BF16 or F32, found I32"),
    ("model.embed_tokens.weight", np.zeros((63, 128), np.float16), r"expected shape \[64, 128\]"),
    ("model.layers.0.mlp.up_proj.weight", None, "up_proj.weight: expected a tensor"),
])  # fmt: skip
def test_missing_and_misshapen_tensors(tmp_path, name, value, message):
    tensors = dense_tensors(CONFIG)
    del tensors[name]
    if value is not None:
        tensors[name] = value
    refused(write_directory(tmp_path / "m", CONFIG, tensors), message)


def test_digest_of_a_dtype_that_no_format_stores(tmp_path):
    path = write_directory(tmp_path / "m", CONFIG, dense_tensors(CONFIG) | {"extra": np.zeros(3, np.float64)})
    with pytest.raises(CheckpointError, match=r"extra: expected dtype F16 or BF16 .*, found F64"):
        load(path).digest()


LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip


@pytest.mark.parametrize("field", [key for key in LLAMA3 if key != "rope_type"])
@pytest.mark.parametrize("value", [None, 0, -1.0, "8", True])
def test_llama3_rope_scaling(dense, field, value):
    data = json.loads((dense / "config.json").read_text())
    (dense / "config.json").write_text(json.dumps(data | {"rope_scaling": LLAMA3}))
    assert load(dense).config.rope_scaling == LLAMA3
    (dense / "config.json").write_text(json.dumps(data | {"rope_scaling": LLAMA3 | {field: value}}))
    refused(dense, rf"config\.json: rope_scaling\.{field}: expected a positive number")


def test_untied_head_must_exist(tmp_path):
    config = dataclasses.replace(CONFIG, tie_embeddings=False)
    refused(write_directory(tmp_path / "m", config, dense_tensors(CONFIG)), "lm_head.weight: expected a tensor")


def test_more_layers_claimed_than_stored(tmp_path):
    config = dataclasses.replace(CONFIG, num_layers=4096)
    refused(write_directory(tmp_path / "m", config, dense_tensors(CONFIG)), r"layers\.1\..*: expected a tensor")


def test_fewer_layers_claimed_than_stored(tmp_path):
    config = dataclasses.replace(CONFIG, num_layers=2)
    refused(write_directory(tmp_path / "m", CONFIG, dense_tensors(config)), r"layers\.1\..*: expected layers below 1")


@pytest.mark.parametrize(("text", "message"), [
    ("", "valid JSON"),
    ("[1]", "a JSON object, found list"),
    ("[" * 100_000, "nested too deeply"),
    ('{"a":' * 100_000, "nested too deeply"),
    ('{"a": NaN}', "NaN is not JSON"),
    ('{"a": 1, "a": 2}', "key 'a' appears twice"),
    ('{"a": -1e999}', "-1e999 is beyond the range"),
    ('{"a": 1' + "0" * 5000 + "}", "valid JSON"),
    ('{"a": "\udcff"}', "valid JSON"),
    (" " * (2**25 + 1), "at most 33554432 bytes"),
])  # fmt: skip
def test_config_json(dense, text, message):
    (dense / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    refused(dense, message)


@pytest.mark.parametrize(("quantization", "message"), [
    ({"quant_method": "bitsandbytes"}, "quant_method: expected awq or gptq or .*, found 'bitsandbytes'"),
    ({"quant_method": ["awq"]}, "quant_method: expected"),
    ({}, "quant_method: expected"),
    ([1], "quantization_config: expected an object, found list"),
])  # fmt: skip
def test_unknown_quantization(tmp_path, quantization, message):
    refused(write_directory(tmp_path / "m", CONFIG, dense_tensors(CONFIG), quantization), message)


def test_pickles_are_never_opened(dense):
    (dense / "model.safetensors").unlink()
    refused(dense, "weights: expected safetensors files, found none")
    for name in ("pytorch_model.bin", "model.pt"):
        (dense / name).write_bytes(b"not even a pickle")
        assert name in refused(dense, "found pickled weights, which are never opened")
        refused(dense / name, "expected safetensors or GGUF, found a pickle, which is never opened")


@pytest.mark.parametrize(("mapping", "message"), [
    ({"a": "../model.safetensors"}, "names of safetensors files beside the index"),
    ({"a": "/etc/passwd"}, "names of safetensors files beside the index"),
    ({"a": "model.bin"}, "names of safetensors files beside the index"),
    ({"a": "x" * 300 + ".safetensors"}, "files that exist"),
    ({"a": "x\0.safetensors"}, "files that exist"),
    ({"a": "\ud800.safetensors"}, "files that exist"),
    ({"a": "other.safetensors"}, "files that exist, found other.safetensors"),
    ({"a": "model.safetensors"}, "model.safetensors.index.json: .*: expected"),
    ({"a": 3}, "weight_map: expected"),
    ([], "weight_map: expected"),
])  # fmt: skip
def test_index(dense, mapping, message):
    (dense / "model.safetensors.index.json").write_text(json.dumps({"weight_map": mapping}))
    refused(dense, message)


def test_nothing_there(tmp_path):
    refused(tmp_path / "absent", "expected a directory, a .gguf file or a hub id")
    refused(tmp_path, "config.json: expected a file, found none")
    (tmp_path / "a.txt").write_text("x")
    refused(tmp_path / "a.txt", "expected a directory or a .gguf file, found a .txt file")
    with pytest.raises(ValueError, match="belongs to a hub id"):
        load(tmp_path, revision="main")
