"""OpenVINO IR: files made by OpenVINO's own tools, our writer against the reader, corrupted graphs refused."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from checkpoint_files import CONFIG, Q_PROJ, dense_tensors, write_directory
from qforensics.checkpoints import CheckpointError, QuantizedLinear, load
from qforensics.quantize import openvino, quantize_checkpoint

DATA = Path(__file__).parent / "data" / "openvino"
PREFIX = "self.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize("name", ["llama-asym", "qwen2-sym", "qwen3-asym"])
def test_weights_as_openvino_decompresses_them(name):
    checkpoint = load(DATA / name)
    expected = json.loads((DATA / name / "expected.json").read_text())
    assert checkpoint.format == "openvino"
    assert checkpoint.quantization["mode"] == ("int4_sym" if "sym" in name.split("-") else "int4_asym")
    for module, record in expected["weights"].items():
        embedding = module == "model.embed_tokens"
        weight = checkpoint.tensor(module + ".weight") if embedding else checkpoint.linear(module).dequantize()
        if expected["rounded_to_float16"]:
            weight = weight.astype(np.float16).astype(np.float32)
        assert list(weight.shape) == record["shape"]
        assert hashlib.sha256(weight.tobytes()).hexdigest() == record["sha256"], module
    norm = checkpoint.tensor("model.norm.weight")
    assert norm.shape == (128,)
    assert 0.05 < norm.std() < 0.2  # they were made as 1 + 0.1 * normal


def test_what_the_real_files_exercise():
    symmetric = load(DATA / "qwen2-sym").linear(Q_PROJ)
    assert (symmetric.scales < 0).any()  # NNCF's symmetric scales have either sign
    assert (symmetric.scales > 0).any()
    assert (symmetric.zeros == 8).all()
    assert symmetric.bias.shape == (128,)
    head = load(DATA / "llama-asym").linear("lm_head")
    assert (head.bits, head.group_size) == (8, -1)
    qwen3 = load(DATA / "qwen3-asym")
    assert qwen3.tensor("model.layers.0.self_attn.q_norm.weight").shape == (32,)
    tied = qwen3.linear("lm_head")
    assert isinstance(tied, QuantizedLinear)
    assert tied.dequantize().tobytes() == qwen3.tensor("model.embed_tokens.weight").tobytes()


@pytest.mark.parametrize("group", [-1, 32])
def test_writer(tmp_path, group):
    tensors = dense_tensors(CONFIG)
    source = write_directory(tmp_path / "source", CONFIG, tensors)
    checkpoint = quantize_checkpoint(source, tmp_path / "ir", method="openvino", group_size=group)
    assert checkpoint.config == CONFIG
    for name in checkpoint.linear_names[:-1]:
        expected, found = openvino(tensors[name + ".weight"], group), checkpoint.linear(name)
        for part in ("codes", "zeros", "scales"):
            assert getattr(found, part).tobytes() == getattr(expected, part).tobytes(), (name, part)
    assert checkpoint.tensor("model.norm.weight").tobytes() == tensors["model.norm.weight"].astype(np.float32).tobytes()
    embedding = openvino(tensors["model.embed_tokens.weight"], -1, bits=8).dequantize()
    assert checkpoint.tensor("model.embed_tokens.weight").tobytes() == embedding.tobytes()
    assert np.abs(embedding - tensors["model.embed_tokens.weight"]).max() < 0.02  # half a step of 4 / 255, and more


@pytest.fixture
def ir(tmp_path):
    return Path(shutil.copytree(DATA / "llama-asym", tmp_path / "ir"))


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


def edited(ir, pattern, replacement):
    file = ir / "openvino_model.xml"
    text, count = re.subn(pattern, replacement, file.read_text(), count=1, flags=re.S)
    assert count == 1, pattern
    file.write_text(text)


WEIGHT = rf'(name="{PREFIX}\._openvino_orig_weight" type="Const" version="opset1">\s*<data )'
SCALE = rf'(name="{PREFIX}\._openvino_orig_weight/scale" type="Const" version="opset1">\s*<data )'
ZERO = rf'(name="{PREFIX}\._openvino_orig_weight/zero_point" type="Const" version="opset1">\s*<data )'


@pytest.mark.parametrize(("pattern", "replacement", "message"), [
    (WEIGHT + r'element_type="u4"', r'\1element_type="u5"', "element type .*, found u5"),
    (WEIGHT + r'element_type="u4"', r'\1element_type="u8"', "expected 16384 bytes"),
    (WEIGHT + r'(.*?)size="8192"', r'\1\2size="8191"', r"expected 8192 bytes \(u4 \[128, 4, 32\]\), found size 8191"),
    (WEIGHT + r'(.*?)offset="\d+"', r'\1\2offset="99999999"', "data inside the .bin file"),
    (WEIGHT + r'(.*?)offset="\d+"', r'\1\2offset="-4"', "decimal shape, offset and size"),
    (WEIGHT + r'(.*?)offset="\d+"', r'\1\2offset="1' + "0" * 40 + '"', "decimal shape, offset and size"),
    (WEIGHT + r'(.*?)offset="\d+"', r"\1\2", "an attribute 'offset', found none"),
    (WEIGHT + r'(.*?)shape="128, 4, 32"', r'\1\2shape="99999999999, 99999999999"', "expected .* bytes"),
    (WEIGHT + r'(.*?)shape="128, 4, 32"', r'\1\2shape="128, 8, 16"', r"scale: expected shape \[128, 8, 1\]"),
    (WEIGHT + r'(.*?)shape="128, 4, 32"', r'\1\2shape="64, 8, 32"', r"expected \[128, K/G, G\]"),
    (WEIGHT + r'(.*?)shape="128, 4, 32"', r'\1\2shape="' + "1, " * 100_000 + '16384"', "at most 16 dimensions"),
    (SCALE + r'element_type="f16"', r'\1element_type="bf16"', "scale: expected f16, found bf16"),
    (SCALE + r'(.*?)shape="128, 4, 1"', r'\1\2shape="128, 1, 4"', r"scale: expected shape \[128, 4, 1\]"),
    (ZERO + r'element_type="u4"', r'\1element_type="i4"', "zero point: expected u4, found i4"),
    (rf'name="{PREFIX}\._openvino', 'name="self.model.nothing._openvino', "q_proj.weight: expected a constant"),
    (rf'name="{PREFIX}\._openvino_orig_weight"', f'name="{PREFIX[:-6]}k_proj.weight"', "k_proj.weight: .* weight once"),
    (rf'name="{PREFIX}\._openvino_orig_weight/zero_point/subtract" type="Sub', 'name="x" type="Xub', "Subtract or"),
    (r'(<edge [^>]*/>)', r"\1\1", "expected one edge per input"),
    (r'<net name="[^"]*" version="11">', '<net name="x" version="7">', "<net> of version 10 or 11"),
    (r'<layer id="1" ', '<layer id="0" ', "layer 0: expected each id once"),
    (r"</net>", "", "expected a well-formed document"),
    (r"<net ", '<!DOCTYPE net [<!ENTITY a "aaaa">]><net ', "no document type and no entities"),
    (r"<net ", '<!DOCTYPE net SYSTEM "file:///etc/passwd"><net ', "no document type and no entities"),
    (r"<layers>", "<layers>" + "<a>" * 100, "at most 64 levels"),
    (r"<layers>", "<layers>\0", "well-formed"),
])  # fmt: skip
def test_graphs(ir, pattern, replacement, message):
    edited(ir, pattern, replacement)
    refused(ir, message)


def test_lost_edges(ir):
    """Without the edge out of a weight's constant, or the one that brings its scale."""
    text = (ir / "openvino_model.xml").read_text()
    for suffix, message in (
        ("", "expected one consumer, Convert"),
        ("/scale", "expected a constant at port 1 of Multiply"),
    ):
        layer = re.search(rf'<layer id="(\d+)" name="{PREFIX}\._openvino_orig_weight{suffix}"', text)[1]
        changed, count = re.subn(rf'<edge from-layer="{layer}" [^>]*/>', "", text)
        assert count == 1
        (ir / "openvino_model.xml").write_text(changed)
        refused(ir, message)


def test_bin_file(ir):
    file = ir / "openvino_model.bin"
    data = file.read_bytes()
    file.write_bytes(data[:-1])
    refused(ir, "data inside the .bin file")
    file.write_bytes(data + b"\0")
    refused(ir, "size: expected the last constant's end")
    file.unlink()
    refused(ir, "openvino_model.bin: expected a file, found none")


def test_scale_that_is_not_finite(ir):
    text = (ir / "openvino_model.xml").read_text()
    offset = int(re.search(SCALE + r'.*?offset="(\d+)"', text, re.S)[2])
    data = bytearray((ir / "openvino_model.bin").read_bytes())
    data[offset : offset + 2] = np.float16(np.nan).tobytes()
    (ir / "openvino_model.bin").write_bytes(data)
    refused(ir, "q_proj: scales: expected finite")
