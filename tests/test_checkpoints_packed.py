"""Packed safetensors formats: words read by plain loops against the readers, and every packer against its reader."""

import dataclasses
import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from checkpoint_files import (  # fmt: skip
    CONFIG,
    GROUP,
    Q_PROJ,
    bfloat16_pairs,
    dense_tensors,
    quantized_tensors,
    random_layer,
    stream_value,
    write_directory,
)
from qforensics.checkpoints import DenseLinear, QuantizedLinear, load
from qforensics.checkpoints._bits import AWQ_ORDER, pack_bits, unpack_bits
from qforensics.checkpoints._torchao import pack_tiles, unpack_tiles
from qforensics.quantize import pack_awq, pack_compressed_tensors, pack_gptq, pack_torchao
from qforensics.quantize._pack import CONTAINERS, torchao_metadata

AWQ = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}
GPTQ = {
    "quant_method": "gptq",
    "bits": 4,
    "group_size": GROUP,
    "desc_act": False,
    "sym": False,
    "checkpoint_format": "gptq",
}
K, N = 128, 128  # of Q_PROJ


def compressed(**weights):
    scheme = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": GROUP} | weights
    groups = {"group_0": {"targets": ["Linear"], "weights": scheme, "input_activations": None}}
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": groups,
        "ignore": ["lm_head"],
    }


def directory_with(path, layer, pack, quantization, metadata=None):
    """A checkpoint whose q_proj is `layer` and whose other layers are dense."""
    tensors = dense_tensors(CONFIG)
    del tensors[Q_PROJ + ".weight"]
    tensors |= {f"{Q_PROJ}.{part}": value for part, value in pack(layer).items()}
    return write_directory(path, CONFIG, tensors, quantization, metadata), tensors


def assert_same_layer(found, expected):
    assert isinstance(found, QuantizedLinear)
    for name in ("codes", "zeros", "scales", "group_index", "offsets", "bias"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        if theirs is None:
            assert ours is None, name
        else:
            assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), name
            assert ours.tobytes() == theirs.tobytes(), name
    assert (found.group_size, found.bits) == (expected.group_size, expected.bits)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_bit_stream(bits):
    words = np.random.default_rng(bits).integers(-(2**31), 2**31, (3, 6), dtype=np.int32)
    values = unpack_bits(words, bits)
    assert values.shape == (3, 6 * 32 // bits)
    for row in range(3):
        assert values[row].tolist() == [stream_value(words[row].tolist(), i, bits) for i in range(values.shape[1])]
    assert pack_bits(values, bits).tobytes() == words.tobytes()


def test_three_bit_values_straddle_words():
    # the two straddles of the GPTQ layout: value 10 in words 0 and 1, value 21 in words 1 and 2
    for value, low, high in ((10, 0, 1), (21, 1, 2)):
        values = np.zeros(32, np.uint8)
        values[value] = 7
        words = pack_bits(values, 3).view(np.uint32)
        assert words[low] != 0 and words[high] != 0  # noqa: PT018


def test_awq_order():
    word = np.array([int.from_bytes(bytes([0x10, 0x32, 0x54, 0x76]), "little")], np.uint32).view(np.int32)
    values = unpack_bits(word, order=AWQ_ORDER)  # nibble i holds i
    assert [int(values[column]) for column in AWQ_ORDER] == list(range(8))
    assert pack_bits(values, order=AWQ_ORDER).tobytes() == word.tobytes()


def test_awq_against_plain_loops(tmp_path):
    layer = random_layer(K, N, GROUP)
    path, tensors = directory_with(tmp_path / "m", layer, pack_awq, AWQ)
    for name, array in (("qweight", layer.codes), ("qzeros", layer.zeros)):
        words = tensors[f"{Q_PROJ}.{name}"]
        for row in (0, 1, array.shape[0] - 1):
            for column in range(N):
                nibble = AWQ_ORDER.index(column % 8)
                assert int(words[row, column // 8]) >> (4 * nibble) & 15 == array[row, column]
    assert_same_layer(load(path).linear(Q_PROJ), layer)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group", [-1, GROUP])
def test_gptq_against_plain_loops(tmp_path, version, bits, group):
    layer = random_layer(K, N, group, bits=bits)
    form = {1: "gptq", 2: "gptq_v2"}[version]
    settings = GPTQ | {"bits": bits, "group_size": group, "checkpoint_format": form}
    path, tensors = directory_with(tmp_path / "m", layer, lambda x: pack_gptq(x, version=version), settings)
    columns, rows = tensors[Q_PROJ + ".qweight"].T.tolist(), tensors[Q_PROJ + ".qzeros"].tolist()
    for column in (0, 7, N - 1):
        assert [stream_value(columns[column], k, bits) for k in range(K)] == layer.codes[:, column].tolist()
    stored = [stream_value(rows[0], n, bits) + 2 - version for n in range(N)]
    assert stored == layer.zeros[0].tolist()
    assert_same_layer(load(path).linear(Q_PROJ), layer)


def test_gptq_act_order(tmp_path):
    index = np.random.default_rng(3).permutation(np.arange(K, dtype=np.int32) // GROUP)
    layer = random_layer(K, N, GROUP, group_index=index)
    path, _ = directory_with(tmp_path / "m", layer, pack_gptq, GPTQ | {"desc_act": True})
    assert_same_layer(load(path).linear(Q_PROJ), layer)


def test_gptq_symmetric_with_bias_and_old_settings_file(tmp_path):
    layer = random_layer(K, N, GROUP, zeros=np.full((K // GROUP, N), 8, np.uint8), bias=np.ones(N, np.float16))
    path, tensors = directory_with(tmp_path / "m", layer, pack_gptq, None)
    assert (tensors[Q_PROJ + ".qzeros"] == 0x77777777).all()
    settings = {"bits": 4, "group_size": GROUP, "desc_act": False, "sym": True}  # AutoGPTQ's file has no quant_method
    (path / "quantize_config.json").write_text(json.dumps(settings))
    checkpoint = load(path)
    assert checkpoint.format == "gptq"
    assert_same_layer(checkpoint.linear(Q_PROJ), layer)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", [-1, GROUP])
def test_compressed_tensors_against_plain_loops(tmp_path, bits, symmetric, group):
    groups = 1 if group == -1 else K // group
    zeros = np.full((groups, N), 1 << (bits - 1), np.uint8) if symmetric else None
    layer = random_layer(K, N, group, bits=bits, zeros=zeros)
    settings = compressed(
        num_bits=bits, symmetric=symmetric, group_size=group, strategy="channel" if group == -1 else "group"
    )
    path, tensors = directory_with(
        tmp_path / "m", layer, lambda x: pack_compressed_tensors(x, symmetric=symmetric), settings
    )
    words = tensors[Q_PROJ + ".weight_packed"].tolist()
    for n in (0, 5, N - 1):
        assert [stream_value(words[n], k, bits) for k in range(K)] == layer.codes[:, n].tolist()
    if not symmetric:
        columns = tensors[Q_PROJ + ".weight_zero_point"].T.tolist()
        assert [stream_value(columns[0], n, bits) for n in range(N)] == layer.zeros[0].tolist()
    assert_same_layer(load(path).linear(Q_PROJ), layer)


def test_compressed_tensors_act_order_and_bfloat16_scales(tmp_path):
    index = np.random.default_rng(3).permutation(np.arange(K, dtype=np.int32) // GROUP)
    layer = random_layer(
        K, N, GROUP, group_index=index, zeros=np.full((4, N), 8, np.uint8), scale_dtype=ml_dtypes.bfloat16
    )
    path, _ = directory_with(tmp_path / "m", layer, pack_compressed_tensors, compressed(actorder="group"))
    assert_same_layer(load(path).linear(Q_PROJ), layer)


def test_tiles_against_the_lane_definition():
    """What lane l of a warp holds, as PyTorch's `int4mm.cu` lays it out (`matrix_to_m16n8k16_Bint4_layout`)."""
    k, n = 256, 16
    codes = np.random.default_rng(5).integers(0, 16, (k, n), dtype=np.uint8)
    words = pack_tiles(codes).view(np.uint32)
    assert words.shape == (n // 8, k // 128, 32, 4)
    for n_tile, k_tile, lane, word in np.ndindex(words.shape):
        rows = [16 * tile + 2 * (lane % 4) + step for tile in (0, 1) for step in (0, 1, 8, 9)]
        values = [codes[128 * k_tile + 32 * word + row, 8 * n_tile + lane // 4] for row in rows]
        expected = sum(int(values[entry]) << (4 * i) for i, entry in enumerate((0, 2, 4, 6, 1, 3, 5, 7)))
        assert int(words[n_tile, k_tile, lane, word]) == expected
    assert unpack_tiles(words.view(np.int32)).tobytes() == codes.tobytes()


def test_torchao(tmp_path):
    scales, offsets = bfloat16_pairs(K // GROUP, N)
    layer = dataclasses.replace(
        random_layer(K, N, GROUP, zeros=np.full((4, N), 8, np.uint8)), scales=scales, offsets=offsets
    )
    metadata = torchao_metadata({Q_PROJ: (N, K)}, [], {Q_PROJ: GROUP})
    path, tensors = directory_with(
        tmp_path / "m", layer, pack_torchao, CONTAINERS["pytorch_int4"].settings(GROUP), metadata
    )
    assert tensors[Q_PROJ + "._weight_qdata"].shape == (N // 8, 1024 // 128, 32, 4)  # K padded to 1024
    checkpoint = load(path)
    assert checkpoint.quantization["group_size"] == GROUP
    assert_same_layer(checkpoint.linear(Q_PROJ), layer)
    pairs = tensors[Q_PROJ + "._weight_scale_and_zero"].astype(np.float32)
    padding = (0 - 8) * pairs[K // GROUP :, :, 0] + pairs[K // GROUP :, :, 1]  # code 0 of the padded rows
    assert (padding == 0).all()


def test_dense_layers_beside_packed_ones(tmp_path):
    path, tensors = directory_with(tmp_path / "m", random_layer(K, N, GROUP), pack_awq, AWQ)
    checkpoint = load(path)
    layer = checkpoint.linear("model.layers.0.mlp.up_proj")
    assert isinstance(layer, DenseLinear)
    assert layer.weight.tobytes() == tensors["model.layers.0.mlp.up_proj.weight"].tobytes()
    head = checkpoint.linear("lm_head")
    assert head.weight.tobytes() == tensors["model.embed_tokens.weight"].tobytes()
    assert (checkpoint.linear_names[-1], checkpoint.names[0]) == ("lm_head", "model.embed_tokens.weight")
    assert "\n" not in repr(checkpoint)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_plain_checkpoints(tmp_path, dtype, architecture):
    config = dataclasses.replace(
        CONFIG, architecture=architecture, attention_bias=architecture == "qwen2", tie_embeddings=False
    )
    tensors = {name: value.astype(dtype) for name, value in dense_tensors(config).items()}
    checkpoint = load(write_directory(tmp_path / "m", config, tensors))
    assert (checkpoint.format, checkpoint.config, checkpoint.quantization) == ("hf", config, {})
    for name in checkpoint.names:
        assert checkpoint.tensor(name).tobytes() == tensors[name].tobytes()
    for name in checkpoint.linear_names:
        assert checkpoint.linear(name).weight.tobytes() == tensors[name + ".weight"].tobytes()
    assert (checkpoint.linear(Q_PROJ).bias is not None) == (architecture == "qwen2")
    with pytest.raises(KeyError, match="no tensor 'nonsense'"):
        checkpoint.tensor("nonsense")
    with pytest.raises(KeyError, match="no linear layer"):
        checkpoint.linear("model.layers.1.mlp.up_proj")


def test_shards_have_the_digest_of_the_whole(tmp_path):
    tensors = quantized_tensors(CONFIG, "awq", pack_awq)
    whole = load(write_directory(tmp_path / "whole", CONFIG, tensors, AWQ))
    parts = write_directory(tmp_path / "parts", CONFIG, tensors, AWQ)
    (parts / "model.safetensors").unlink()
    names = sorted(tensors)
    mapping = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(mapping.values()):
        save_file({name: np.ascontiguousarray(tensors[name]) for name in names if mapping[name] == file}, parts / file)
    (parts / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": mapping}))
    sharded = load(parts)
    assert sharded.digest() == whole.digest()
    assert_same_layer(sharded.linear(Q_PROJ), whole.linear(Q_PROJ))
    changed = dict(tensors)
    changed["model.norm.weight"] = tensors["model.norm.weight"] + np.float16(1)
    assert load(write_directory(tmp_path / "changed", CONFIG, changed, AWQ)).digest() != whole.digest()


def test_reading_opens_one_file_and_keeps_none(tmp_path):
    checkpoint = load(write_directory(tmp_path / "m", CONFIG, quantized_tensors(CONFIG, "awq", pack_awq), AWQ))
    layer = checkpoint.linear(Q_PROJ)
    with open("/proc/self/maps") as maps:
        assert "model.safetensors" not in maps.read()
    assert layer.codes.flags.c_contiguous
