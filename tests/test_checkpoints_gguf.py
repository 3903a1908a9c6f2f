"""GGUF: files written by the `gguf` package, values against its own dequantizer; corrupted headers refused."""

import dataclasses
import re
import struct

import gguf
import ml_dtypes
import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType as GgmlType

from checkpoint_files import CONFIG, Q_PROJ, dense_tensors
from qforensics.checkpoints import CheckpointError, DenseLinear, QuantizedLinear, load

NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
}  # fmt: skip


def interleave(rows, heads):
    """llama.cpp's order: rotary pair (i, i + half) of a head becomes rows (2 i, 2 i + 1); by loops."""
    result = np.empty_like(rows)
    size = rows.shape[0] // heads
    for head in range(heads):
        for i in range(size // 2):
            result[head * size + 2 * i] = rows[head * size + i]
            result[head * size + 2 * i + 1] = rows[head * size + size // 2 + i]
    return result


def write_gguf(path, config, kind, *, extra=()):
    """Write dense_tensors(config), 2-d ones as `kind`; returns what the gguf package makes of each, under HF names."""
    writer = gguf.GGUFWriter(path, config.architecture)
    writer.add_block_count(config.num_layers)
    writer.add_context_length(config.max_positions)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_array("tokenizer.ggml.tokens", ["a", "bc", ""])
    for key, value in extra:
        (writer.add_uint32 if isinstance(value, int) else writer.add_string)(key, value)
    values = {}
    for name, array in dense_tensors(config).items():
        module, _, suffix = name.rpartition(".")
        short = NAMES[module] if module in NAMES else f"blk.{module.split('.')[2]}.{NAMES[module.split('.', 3)[3]]}"
        stored = array.astype(np.float32)
        heads = {"attn_q": config.num_heads, "attn_k": config.num_kv_heads}.get(short.rpartition(".")[2])
        if config.architecture == "llama" and heads:
            stored = interleave(stored, heads)
        if array.ndim == 2:
            data = gguf.quants.quantize(stored, kind)
            writer.add_tensor(f"{short}.{suffix}", data, raw_dtype=kind)
            back = gguf.quants.dequantize(data, kind)
        else:
            writer.add_tensor(f"{short}.{suffix}", stored)
            back = stored
        values[name] = undo(back, heads) if config.architecture == "llama" and heads else back
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


def undo(rows, heads):
    order = interleave(np.arange(rows.shape[0]), heads)
    result = np.empty_like(rows)
    result[order] = rows
    return result


@pytest.mark.parametrize(
    "kind", [GgmlType.Q4_0, GgmlType.Q4_1, GgmlType.Q8_0, GgmlType.F16, GgmlType.F32, GgmlType.BF16]
)
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_values(tmp_path, kind, architecture):
    config = dataclasses.replace(CONFIG, architecture=architecture, attention_bias=architecture == "qwen2")
    expected = write_gguf(tmp_path / "m.gguf", config, kind)
    checkpoint = load(tmp_path / "m.gguf")
    assert checkpoint.config == config
    for name in checkpoint.names:
        assert checkpoint.tensor(name).astype(np.float32).tobytes() == expected[name].tobytes(), name
    quantized = kind in (GgmlType.Q4_0, GgmlType.Q4_1, GgmlType.Q8_0)
    for name in checkpoint.linear_names:
        layer = checkpoint.linear(name)
        key = "model.embed_tokens" if name == "lm_head" else name
        assert layer.dequantize().tobytes() == expected[key + ".weight"].tobytes(), name
        assert isinstance(layer, QuantizedLinear if quantized else DenseLinear)
        if name.endswith("q_proj") and architecture == "qwen2":
            assert layer.bias.tobytes() == expected[name + ".bias"].tobytes()


def test_form(tmp_path):
    write_gguf(tmp_path / "m.gguf", CONFIG, GgmlType.Q4_1)
    layer = load(tmp_path).linear(Q_PROJ)  # a directory with one GGUF file
    assert (layer.group_size, layer.bits, layer.scales.dtype, layer.offsets.dtype) == (32, 4, np.float16, np.float32)
    assert not layer.zeros.any()
    write_gguf(tmp_path / "m.gguf", dataclasses.replace(CONFIG, tie_embeddings=False), GgmlType.BF16)
    assert load(tmp_path).linear("lm_head").weight.dtype == ml_dtypes.bfloat16


@pytest.fixture
def file(tmp_path):
    write_gguf(tmp_path / "m.gguf", CONFIG, GgmlType.Q4_0)
    return tmp_path / "m.gguf"


def read_layers(path):
    checkpoint = load(path)
    for name in checkpoint.linear_names:
        checkpoint.linear(name)


def refused(path, message):
    with pytest.raises(CheckpointError) as caught:
        read_layers(path)
    assert re.search(message, str(caught.value)), str(caught.value)
    assert str(path) in str(caught.value)


def patched(path, old, new, *, count=1):
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, count))


def field(key, value_type, value):
    return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", value_type) + value


def test_truncated_and_oversized(file):
    data = file.read_bytes()
    for size in (0, 3, 7, 20, 100, len(data) // 2, len(data) - 40):
        file.write_bytes(data[:size])
        refused(file, "expected .* bytes|file's end|truncated|can hold")
    file.write_bytes(data[:-17])  # within the last tensor: refused before it is read
    refused(file, "bytes at .* found the file's end")
    file.write_bytes(data + bytes(64))
    refused(file, "size: expected the last tensor's end")


@pytest.mark.parametrize(("offset", "code", "value", "message"), [
    (0, "I", 1, "magic: expected GGUF"),
    (4, "I", 1, "version: expected 2 or 3, little-endian, found 1"),
    (4, "I", 3 << 24, "version: expected 2 or 3, little-endian"),
    (8, "Q", 2**60, "tensor count: expected no more than the file can hold"),
    (16, "Q", 2**60, "field count: expected no more than the file can hold"),
    (24, "Q", 2**62, "field name: expected 4611686018427387904 bytes"),
])  # fmt: skip
def test_counts(file, offset, code, value, message):
    data = bytearray(file.read_bytes())
    struct.pack_into("<" + code, data, offset, value)
    file.write_bytes(data)
    refused(file, message)


def test_array_lengths_are_checked_before_anything_is_made(file):
    head = struct.pack("<Q", len("tokenizer.ggml.tokens")) + b"tokenizer.ggml.tokens" + struct.pack("<I", 9)
    for kind, count, message in (
        (8, 2**50, "no more than the file can hold"),
        (4, 2**50, "bytes at offset"),
        (9, 1, "an array of arrays"),
    ):
        data = file.read_bytes()
        patched(file, head + struct.pack("<IQ", 8, 3), head + struct.pack("<IQ", kind, count))
        refused(file, message)
        file.write_bytes(data)


def test_tensor_infos(file):
    name = b"blk.0.attn_q.weight"
    info = struct.pack("<Q", len(name)) + name
    whole = file.read_bytes()
    place = whole.index(info) + len(info)
    dims, first, second, kind, offset = struct.unpack_from("<IQQIQ", whole, place)
    assert (dims, first, second) == (2, 128, 128)
    for values, message in (
        ((9, first, second, kind, offset), "1 to 4 dimensions, found 9"),
        ((dims, 100, second, kind, offset), "rows of whole Q4_0 blocks of 32"),
        ((dims, 0, second, kind, offset), "rows of whole"),
        ((dims, 2**40, 2**40, kind, offset), "file's end|an offset from"),
        ((dims, first, second, 200, offset), "a ggml tensor type, found 200"),
        ((dims, first, second, 12, offset), "attn_q.weight: expected rows of whole Q4_K"),
        ((dims, first, second, kind, offset + 1), "aligned to 32"),
        ((dims, first, second, kind, 2**50), "file's end"),
        ((dims, first, second, kind, 0), "an offset from"),
        ((dims, 64, 256, kind, offset), r"attn_q.weight: expected shape \[128, 128\], found \[256, 64\]"),
    ):
        data = bytearray(whole)
        struct.pack_into("<IQQIQ", data, place, *values)
        file.write_bytes(data)
        refused(file, message)


def test_names(file):
    whole = file.read_bytes()
    for old, new, message in (
        (b"blk.0.attn_q.weight", b"blk.0.attn_k.weight", "each tensor once|attn_q.weight: expected a tensor"),
        (b"blk.0.attn_q.weight", b"blk.0.attn_x.weight", "attn_q.weight: expected a tensor"),
        (b"blk.0.ffn_up.weight", b"blk.0.ffn_u\xff.weight", "expected UTF-8"),
        (b"llama.block_count", b"llama.block_kount", "num_hidden_layers: expected an integer"),
        (b"llama.context_length", b"llama.embedding_leng", "llama.embedding_leng|max_position"),
    ):
        patched(file, old, new)
        if new == b"llama.embedding_leng":
            load(file)  # the context length has a default
        else:
            refused(file, message)
        file.write_bytes(whole)


def test_architecture_and_rope_scaling(tmp_path, file):
    patched(file, b"llama", b"mamba", count=1)
    refused(file, "general.architecture: expected llama, qwen2 or qwen3, found 'mamba'")
    write_gguf(tmp_path / "s.gguf", CONFIG, GgmlType.F16, extra=[("llama.rope.scaling.type", "yarn")])
    refused(tmp_path / "s.gguf", r"rope scaling: expected none .*, found yarn")


def test_scale_that_is_not_finite(file):
    checkpoint = load(file)
    place = checkpoint.header.tensors["blk.0.attn_q.weight"].offset
    data = bytearray(file.read_bytes())
    data[place : place + 2] = np.float16(np.inf).tobytes()
    file.write_bytes(data)
    refused(file, "self_attn.q_proj: scales: expected finite values")


def test_digest_is_of_the_tensors(tmp_path, file):
    digest = load(file).digest()
    write_gguf(tmp_path / "again.gguf", CONFIG, GgmlType.Q4_0, extra=[("general.name", "another header")])
    assert load(tmp_path / "again.gguf").digest() == digest
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    data[-40] ^= 1
    file.write_bytes(data)
    assert load(file).digest() != digest
