"""Every contradiction a safetensors checkpoint can hold is refused by name."""

import dataclasses
import json
import re
import struct

import ml_dtypes
import numpy as np
import pytest

from checkpoint_files import CONFIG, GROUP, Q_PROJ, dense_tensors, quantized_tensors, write_directory
from qforensics.checkpoints import CheckpointError, load
from qforensics.quantize import pack_awq, pack_compressed_tensors, pack_gptq, pack_torchao
from qforensics.quantize._pack import CONTAINERS, torchao_metadata
from test_checkpoints_packed import AWQ, GPTQ, compressed

SYM_GPTQ = GPTQ | {"sym": True}


def read_everything(path):
    checkpoint = load(path)
    for name in checkpoint.names:
        checkpoint.tensor(name)
    for name in checkpoint.linear_names:
        checkpoint.linear(name)


def refused(path, message):
    with pytest.raises(CheckpointError) as caught:
        read_everything(path)
    assert re.search(message, str(caught.value)), str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def changed(tensors, name, change):
    """Tensors with one of Q_PROJ's changed; None removes it."""
    result = dict(tensors)
    if change is None:
        del result[f"{Q_PROJ}.{name}"]
    else:
        result[f"{Q_PROJ}.{name}"] = change(tensors.get(f"{Q_PROJ}.{name}"))
    return result


def with_value(value):
    def change(array):
        result = array.copy()
        result.reshape(-1)[3] = value
        return result

    return change


COMMON = [
    ("qweight", lambda a: a.astype(np.int64), r"qweight: expected dtype I32, found I64"),
    ("qweight", lambda a: a[:-1], r"qweight: expected shape \[\d+, \d+\], found"),
    ("qweight", lambda a: a.reshape(-1), r"qweight: expected shape"),
    ("qzeros", None, "qzeros: expected a tensor, found none of that name"),
    ("qzeros", lambda a: a[:, :-1], "qzeros: expected shape"),
    ("scales", None, "scales: expected a tensor"),
    ("scales", lambda a: a.astype(np.float32), "scales: expected dtype F16, found F32"),
    ("scales", lambda a: a[:2], r"scales: expected shape \[4, 128\], found \[2, 128\]"),
    ("scales", with_value(np.nan), "scales: expected finite"),
    ("scales", with_value(np.inf), "scales: expected finite"),
    ("weight", lambda _: np.zeros((128, 128), np.float16), "expected packed or dense weights, found both"),
    ("bias", lambda _: np.zeros(7, np.float16), r"bias: expected shape \[128\], found \[7\]"),
]


@pytest.mark.parametrize(("name", "change", "message"), [
    *COMMON,
    ("scales", with_value(0), r"scales: expected finite, positive values, found 0.0 at \[0, 3\]"),
    ("scales", with_value(-1), "positive values, found -1.0"),
])  # fmt: skip
def test_awq_tensors(tmp_path, name, change, message):
    tensors = changed(quantized_tensors(CONFIG, "awq", pack_awq), name, change)
    refused(write_directory(tmp_path / "m", CONFIG, tensors, AWQ), message)


@pytest.mark.parametrize(("change", "message"), [
    ({"bits": 3}, "bits: expected 4, found 3"),
    ({"bits": None}, "bits: expected an integer"),
    ({"version": "gemv"}, "version: expected 'gemm', found 'gemv'"),
    ({"version": "marlin"}, "version: expected 'gemm'"),
    ({"zero_point": False}, "zero_point: expected true"),
    ({"group_size": 0}, "group_size: expected an integer"),
    ({"group_size": 48}, "K a multiple of the group size 48, found K = 128"),
    ({"group_size": 64}, "expected shape"),
])  # fmt: skip
def test_awq_settings(tmp_path, change, message):
    tensors = quantized_tensors(CONFIG, "awq", pack_awq)
    refused(write_directory(tmp_path / "m", CONFIG, tensors, AWQ | change), message)


@pytest.mark.parametrize(("name", "change", "message"), [
    *COMMON,
    ("qzeros", with_value(0x77777776), r"qzeros: expected 7 everywhere \(sym is true, format v1\), found 6"),
    ("g_idx", lambda a: a + 1, r"g_idx: expected groups in 0\.\.3, found 1\.\.4"),
    ("g_idx", lambda a: a - 1, r"g_idx: expected groups in 0\.\.3, found -1\.\.2"),
    ("g_idx", lambda a: a * 0, "g_idx: expected 32 rows in every group, found 128 in group 0"),
    ("g_idx", lambda a: a[::-1], r"g_idx: expected k // group_size \(desc_act is false\)"),
    ("g_idx", lambda a: a[:-1], r"g_idx: expected shape \[128\]"),
    ("g_idx", lambda a: a.astype(np.int64), "g_idx: expected dtype I32"),
])  # fmt: skip
def test_gptq_tensors(tmp_path, name, change, message):
    tensors = changed(quantized_tensors(CONFIG, "gptq", pack_gptq), name, change)
    refused(write_directory(tmp_path / "m", CONFIG, tensors, SYM_GPTQ), message)


@pytest.mark.parametrize(("change", "message"), [
    ({"bits": 5}, "bits: expected 2, 3, 4 or 8, found 5"),
    ({"bits": 8}, "qweight: expected shape"),
    ({"checkpoint_format": "gptq_p"}, "checkpoint_format: expected gptq or gptq_v2, found 'gptq_p'"),
    ({"checkpoint_format": "gptq_v2"}, r"expected 8 everywhere \(sym is true, format v2\), found 7"),
    ({"dynamic": {"-:.*": {}}}, "dynamic: expected no per-layer overrides"),
    ({"group_size": 48}, "K a multiple of the group size 48"),
    ({"sym": "true"}, "sym: expected true or false, found 'true'"),
    ({"desc_act": 1}, "desc_act: expected true or false, found 1"),
])  # fmt: skip
def test_gptq_settings(tmp_path, change, message):
    tensors = quantized_tensors(CONFIG, "gptq", pack_gptq)
    refused(write_directory(tmp_path / "m", CONFIG, tensors, SYM_GPTQ | change), message)


def test_gptq_v2_zeros_in_a_file_without_format(tmp_path):
    tensors = quantized_tensors(CONFIG, "gptq", lambda x: pack_gptq(x, version=2))
    settings = {k: v for k, v in SYM_GPTQ.items() if k != "checkpoint_format"}
    refused(write_directory(tmp_path / "m", CONFIG, tensors, settings), "expected 7 everywhere .*, found 8")


def test_gptq_wrapped_zero(tmp_path):
    tensors = changed(quantized_tensors(CONFIG, "gptq", pack_gptq), "qzeros", with_value(-1))
    refused(
        write_directory(tmp_path / "m", CONFIG, tensors, GPTQ), "expected v1 zeros below 15, found one that wrapped"
    )


def test_gptq_act_order_without_index(tmp_path):
    tensors = changed(quantized_tensors(CONFIG, "gptq", pack_gptq), "g_idx", None)
    refused(write_directory(tmp_path / "m", CONFIG, tensors, SYM_GPTQ | {"desc_act": True}), "g_idx: expected a tensor")


@pytest.mark.parametrize(("name", "change", "message"), [
    ("weight_packed", lambda a: a.astype(np.uint8), "weight_packed: expected dtype I32, found U8"),
    ("weight_packed", lambda a: a[:, 1:], "weight_packed: expected shape"),
    ("weight_scale", None, "weight_scale: expected a tensor"),
    ("weight_scale", lambda a: a.astype(np.float32), "weight_scale: expected dtype F16 or BF16, found F32"),
    ("weight_scale", with_value(np.inf), "scales: expected finite"),
    ("weight_shape", lambda a: a[::-1] * 2, r"weight_shape: expected \[128, 128\], found \[256, 256\]"),
    ("weight_shape", lambda a: a[:1], r"weight_shape: expected shape \[2\]"),
    ("weight_zero_point", lambda _: np.zeros((16, 4), np.int32), "expected no weight_zero_point"),
])  # fmt: skip
def test_compressed_tensors(tmp_path, name, change, message):
    tensors = changed(quantized_tensors(CONFIG, "compressed-tensors", pack_compressed_tensors), name, change)
    refused(write_directory(tmp_path / "m", CONFIG, tensors, compressed()), message)


@pytest.mark.parametrize(("settings", "message"), [
    (compressed() | {"format": "marlin-24"}, "format: expected 'pack-quantized', found 'marlin-24'"),
    (compressed() | {"config_groups": {}}, "config_groups: expected one group"),
    (compressed() | {"config_groups": {"g": 3}}, "config_groups: expected an object with weights"),
    (compressed() | {"config_groups": {"g": {"weights": {}, "input_activations": {}}}}, "expected null"),
    (compressed(type="float"), "weights.type: expected 'int', found 'float'"),
    (compressed(num_bits=3), "num_bits: expected 4 or 8, found 3"),
    (compressed(strategy="tensor"), "strategy: expected 'group' or 'channel', found 'tensor'"),
    (compressed(symmetric="yes"), "symmetric: expected true or false"),
    (compressed(symmetric=False), "weight_zero_point: expected a tensor"),
    (compressed(actorder="group"), "weight_g_idx: expected a tensor"),
    (compressed(group_size=100), "K a multiple of the group size 100"),
])  # fmt: skip
def test_compressed_tensors_settings(tmp_path, settings, message):
    tensors = quantized_tensors(CONFIG, "compressed-tensors", pack_compressed_tensors)
    refused(write_directory(tmp_path / "m", CONFIG, tensors, settings), message)


def torchao_directory(path, name="_weight_qdata", change=lambda a: a, **entry):
    tensors = quantized_tensors(CONFIG, "pytorch_int4", pack_torchao)
    tensors |= {k: v.astype(ml_dtypes.bfloat16) for k, v in tensors.items() if v.dtype == np.float16}
    tensors = changed(tensors, name, change)
    shapes = {n: s for n, s in CONFIG.linear_shapes() if n != "lm_head"}
    metadata = torchao_metadata(shapes, [], dict.fromkeys(shapes, GROUP))
    if entry:
        metadata[Q_PROJ + ".weight"] = json.dumps(json.loads(metadata[Q_PROJ + ".weight"]) | entry)
    return write_directory(path, CONFIG, tensors, CONTAINERS["pytorch_int4"].settings(GROUP), metadata)


@pytest.mark.parametrize(("name", "change", "message"), [
    ("_weight_qdata", lambda a: a[:1], "_weight_qdata: expected shape"),
    ("_weight_qdata", lambda a: a.astype(np.int64), "_weight_qdata: expected dtype I32"),
    ("_weight_scale_and_zero", None, "_weight_scale_and_zero: expected a tensor"),
    ("_weight_scale_and_zero", lambda a: a.astype(np.float16), "expected dtype BF16, found F16"),
    ("_weight_scale_and_zero", with_value(np.nan), "expected finite"),
    ("_weight_act_pre_scale", lambda _: np.zeros(1, np.float16), "expected no act_pre_scale"),
])  # fmt: skip
def test_torchao_tensors(tmp_path, name, change, message):
    refused(torchao_directory(tmp_path / "m", name, change), message)


@pytest.mark.parametrize(("entry", "message"), [
    ({"_type": "Int4Tensor"}, "expected Int4TilePackedTo4dTensor, found 'Int4Tensor'"),
    ({"_data": 3}, "expected Int4TilePackedTo4dTensor"),
    ({"_data": {"block_size": [1, 48]}}, r"expected block_size \[1, divisor of K = 128\], found \[1, 48\]"),
    ({"_data": {"block_size": [1, True]}}, "expected block_size"),
    ({"_data": {"block_size": "x"}}, "expected block_size"),
    ({"_data": {"block_size": [1, 32], "shape": [64, 128]}}, r"expected shape \[128, 128\], found \[64, 128\]"),
])  # fmt: skip
def test_torchao_metadata(tmp_path, entry, message):
    refused(torchao_directory(tmp_path / "m", **entry), message)


def test_torchao_without_metadata(tmp_path):
    tensors = quantized_tensors(CONFIG, "pytorch_int4", pack_torchao)
    path = write_directory(tmp_path / "m", CONFIG, tensors, CONTAINERS["pytorch_int4"].settings(GROUP))
    refused(path, "expected its metadata entry, found none")
    read_everything(torchao_directory(tmp_path / "whole"))


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
