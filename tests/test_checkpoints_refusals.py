"""Every contradiction that packed tensors and their settings can hold is refused by name."""

import json

import ml_dtypes
import numpy as np
import pytest

from checkpoint_files import CONFIG, GROUP, Q_PROJ, quantized_tensors, read_everything, refused, write_directory
from qforensics.checkpoints import load
from qforensics.quantize import pack_awq, pack_compressed_tensors, pack_gptq, pack_torchao
from qforensics.quantize._pack import CONTAINERS, torchao_metadata
from test_checkpoints_packed import AWQ, GPTQ, compressed

SYM_GPTQ = GPTQ | {"sym": True}


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
    ("scales", with_value(np.nan), r"model\.safetensors: \S+q_proj\.scales: expected finite.*, found nan at \[0, 3\]"),
    ("scales", with_value(np.inf), r"model\.safetensors: \S+q_proj\.scales: expected finite.*, found inf at \[0, 3\]"),
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
    ("weight_scale", with_value(np.inf), r"model\.safetensors: \S+weight_scale: expected finite.*, found inf at"),
    ("weight_shape", lambda a: a[::-1] * 2, r"weight_shape: expected \[128, 128\], found \[256, 256\]"),
    ("weight_shape", lambda a: a[:1], r"weight_shape: expected shape \[2\]"),
    ("weight_zero_point", lambda _: np.zeros((16, 4), np.int32), "expected no weight_zero_point"),
])  # fmt: skip
def test_compressed_tensors(tmp_path, name, change, message):
    tensors = changed(quantized_tensors(CONFIG, "compressed-tensors", pack_compressed_tensors), name, change)
    refused(write_directory(tmp_path / "m", CONFIG, tensors, compressed()), message)


@pytest.mark.parametrize(("index", "message"), [
    (np.arange(128) // 32 + 1, r"weight_g_idx: expected groups in 0\.\.3, found 1\.\.4"),
    (np.arange(128) // 64, "weight_g_idx: expected 32 rows in every group, found 64 in group 0"),
])  # fmt: skip
def test_compressed_tensors_group_index(tmp_path, index, message):
    tensors = changed(
        quantized_tensors(CONFIG, "compressed-tensors", pack_compressed_tensors),
        "weight_g_idx",
        lambda _: index.astype(np.int32),
    )
    settings = compressed(actorder="group")
    for name, (_, k) in CONFIG.linear_shapes():  # the order is a setting of all layers
        tensors.setdefault(f"{name}.weight_g_idx", np.arange(k, dtype=np.int32) // GROUP)
    refused(write_directory(tmp_path / "m", CONFIG, tensors, settings), r"model\.safetensors: \S+" + message)


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
    (compressed(actorder="dynamic"), "weight_g_idx: expected a tensor"),
    (compressed(actorder="rows"), "weights.actorder: expected group or dynamic or weight or static, found 'rows'"),
    (compressed(actorder=1), "weights.actorder: expected group"),
    (compressed(group_size=100), "K a multiple of the group size 100"),
])  # fmt: skip
def test_compressed_tensors_settings(tmp_path, settings, message):
    tensors = quantized_tensors(CONFIG, "compressed-tensors", pack_compressed_tensors)
    refused(write_directory(tmp_path / "m", CONFIG, tensors, settings), message)


@pytest.mark.parametrize("order", ["weight", "static", None, False])
def test_compressed_tensors_without_an_index(tmp_path, order):
    tensors = quantized_tensors(CONFIG, "compressed-tensors", pack_compressed_tensors)
    path = write_directory(tmp_path / "m", CONFIG, tensors, compressed(actorder=order))
    assert load(path).linear(Q_PROJ).group_index is None


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
    ("_weight_scale_and_zero", with_value(np.nan), r"safetensors: \S+_scale_and_zero: expected finite.*, found nan"),
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
