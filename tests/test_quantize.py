"""Round to nearest against element-by-element arithmetic, and checkpoints written whole or not at all."""

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import ml_dtypes
import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType as GgmlType

from checkpoint_files import CONFIG, GROUP, Q_PROJ, dense_tensors, write_directory
from qforensics.checkpoints import CheckpointError, DenseLinear, load
from qforensics.quantize import METHODS, _quantize, _writer, openvino, quantize_checkpoint
from test_checkpoints_gguf import write_gguf

F32 = np.float32


def reference(method, group):
    """Codes, zero, scale and offset of one group, by the published formulas, one float32 operation at a time."""
    high, low = max(F32(0), max(group)), min(F32(0), min(group))
    if method == "awq":
        scale = np.float16(max(high - low, F32(1e-5)) / F32(15))
        zero = min(max(np.rint(-low / F32(scale)), 0), 15)
        return [min(max(np.rint(w / F32(scale)) + zero, 0), 15) for w in group], zero, scale, None
    if method in ("gptq", "compressed-tensors"):
        scale = np.float16(max(max(abs(w) for w in group), F32(1e-5)) / F32(7.5))
        return [min(max(np.rint(w / F32(scale)) + 8, 0), 15) for w in group], 8, scale, None
    if method == "openvino":
        scale = max((high - low) / F32(15), np.finfo(F32).eps)
        zero = min(max(np.rint(-low / scale), 0), 15)
        return [min(max(np.rint(F32(w / scale + F32(zero))), 0), 15) for w in group], zero, np.float16(scale), None
    group = [F32(ml_dtypes.bfloat16(w)) for w in group]
    scale = ml_dtypes.bfloat16(max(max(group) - min(group), F32(1e-5)) / F32(15))
    offset = F32(ml_dtypes.bfloat16(min(group) + F32(8) * F32(scale)))
    return [min(max(np.rint((w - offset) / F32(scale)) + 8, 0), 15) for w in group], 8, scale, offset


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [8, -1])
def test_formulas(method, size):
    random = np.random.default_rng(0)
    weight = random.normal(0, 0.1, (6, 32)).astype(np.float16)
    weight[0] = 0
    weight[1] = np.abs(weight[1])  # one sign
    weight[2] = -np.abs(weight[2])
    weight[3] = 0.25  # constant
    weight[4, :16] = np.arange(16) * 0.0625  # ties
    weight[5] = random.normal(0, 1e-7, 32)  # below the least range
    layer = METHODS[method](weight, size)
    rows = 32 if size == -1 else size
    for n in range(6):
        for g in range(32 // rows):
            codes, zero, scale, offset = reference(method, [F32(w) for w in weight[n, g * rows : (g + 1) * rows]])
            assert layer.codes[g * rows : (g + 1) * rows, n].tolist() == codes, (n, g)
            assert layer.zeros[g, n] == zero
            assert layer.scales[g, n].tobytes() == scale.tobytes()
            assert (layer.offsets is None) == (offset is None)
            if offset is not None:
                assert layer.offsets[g, n].tobytes() == offset.tobytes()


@pytest.mark.parametrize("method", METHODS)
def test_error_is_at_most_half_a_step(method):
    weight = np.random.default_rng(1).normal(0, 0.1, (16, 64)).astype(np.float16)
    layer = METHODS[method](weight, 32)
    steps = np.repeat(layer.scales.astype(F32).T, 32, axis=1)
    # half a step from rounding; from clamping up to another half (range 15 of 16 levels), and the zero point's rounding
    assert (np.abs(layer.dequantize() - weight.astype(F32)) <= 1.1 * steps).all()
    assert np.abs(layer.dequantize() - weight.astype(F32)).mean() < 0.3 * steps.mean()


def test_eight_bits_per_row():
    weight = np.random.default_rng(1).normal(0, 1, (5, 40)).astype(np.float16)
    layer = openvino(weight, -1, bits=8)
    assert (layer.bits, layer.group_size, layer.codes.max() > 15) == (8, -1, True)
    assert np.abs(layer.dequantize() - weight).max() < 0.03  # 6 / 255


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_must_be_finite(bad):
    with pytest.raises(ValueError, match="finite"):
        METHODS["awq"](np.array([[0.0, bad]], np.float32), -1)
    with pytest.raises(ValueError, match="divisor of K = 4"):
        METHODS["awq"](np.zeros((1, 4), np.float32), 3)


@pytest.fixture
def source(tmp_path):
    path = write_directory(tmp_path / "source", CONFIG, dense_tensors(CONFIG))
    (path / "tokenizer.json").write_text('{"version": "1.0"}')
    (path / "notes.txt").write_text("not copied")
    return path


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("group", [GROUP, -1])
def test_checkpoints(tmp_path, source, method, group):
    seen = []
    made = quantize_checkpoint(
        source, tmp_path / "made", method=method, group_size=group, progress=lambda *step: seen.append(step)
    )
    dense = load(source)
    assert made.config == dataclasses.replace(dense.config, dtype="bfloat16" if method == "pytorch_int4" else "float16")
    for name in made.linear_names[:-1]:
        weight = dense.linear(name).weight
        expected, found = METHODS[method](weight, group), made.linear(name)
        for part in ("codes", "zeros", "scales", "offsets"):
            ours, theirs = getattr(found, part), getattr(expected, part)
            assert (ours is None) == (theirs is None)
            assert ours is None or ours.tobytes() == theirs.tobytes(), (name, part)
    if method != "openvino":
        dtype = ml_dtypes.bfloat16 if method == "pytorch_int4" else np.float16
        for name in made.names:
            assert made.tensor(name).tobytes() == dense.tensor(name).astype(dtype).tobytes()
        assert isinstance(made.linear("lm_head"), DenseLinear)
    assert (tmp_path / "made" / "tokenizer.json").read_text() == '{"version": "1.0"}'
    assert not (tmp_path / "made" / "notes.txt").exists()
    assert seen[0] == (method, 0, 7)
    assert seen[-1] == (method, 7, 7)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made", "source"]


def test_settings_that_engines_read(tmp_path, source):
    settings = {}
    for method in ("awq", "gptq", "compressed-tensors", "pytorch_int4"):
        quantize_checkpoint(source, tmp_path / method, method=method, group_size=GROUP)
        settings[method] = json.loads((tmp_path / method / "config.json").read_text())["quantization_config"]
    assert settings["awq"] == {
        "quant_method": "awq",
        "bits": 4,
        "group_size": 32,
        "zero_point": True,
        "version": "gemm",
    }
    order = {"desc_act": False, "sym": True, "checkpoint_format": "gptq"}
    assert settings["gptq"] == {"quant_method": "gptq", "bits": 4, "group_size": 32, **order}
    scheme = settings["compressed-tensors"]["config_groups"]["group_0"]["weights"]
    assert (scheme["num_bits"], scheme["strategy"], scheme["group_size"], scheme["symmetric"]) == (4, "group", 32, True)
    torchao = settings["pytorch_int4"]["quant_type"]["default"]
    assert (torchao["_type"], torchao["_data"]["group_size"]) == ("Int4WeightOnlyConfig", 32)


@pytest.mark.parametrize("method", METHODS)
def test_untied_head_and_biases(tmp_path, method):
    config = dataclasses.replace(CONFIG, architecture="qwen2", attention_bias=True, tie_embeddings=False)
    tensors = {k: v.astype(ml_dtypes.bfloat16) for k, v in dense_tensors(config).items()}
    source = write_directory(tmp_path / "source", dataclasses.replace(config, dtype="bfloat16"), tensors)
    made = quantize_checkpoint(source, tmp_path / "made", method=method, group_size=GROUP)
    bias = tensors[Q_PROJ + ".bias"]
    dtype = {"pytorch_int4": ml_dtypes.bfloat16, "openvino": F32}.get(method, np.float16)
    assert made.linear(Q_PROJ).bias.tobytes() == bias.astype(dtype).tobytes()
    head = made.linear("lm_head").dequantize()
    assert np.abs(head - tensors["lm_head.weight"].astype(F32)).max() < (0.005 if method == "openvino" else 1e-3)


def test_gguf_source(tmp_path):
    write_gguf(tmp_path / "m.gguf", CONFIG, GgmlType.Q4_1)
    made = quantize_checkpoint(tmp_path / "m.gguf", tmp_path / "made", method="awq", group_size=GROUP)
    weight = load(tmp_path / "m.gguf").linear(Q_PROJ).dequantize().astype(np.float16)
    assert made.linear(Q_PROJ).codes.tobytes() == METHODS["awq"](weight, GROUP).codes.tobytes()
    assert made.config == CONFIG


def test_two_runs_write_the_same_bytes(tmp_path, source):
    for name in ("a", "b"):
        quantize_checkpoint(source, tmp_path / name, method="gptq", group_size=GROUP)
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


def test_callers_mistakes(tmp_path, source):
    with pytest.raises(ValueError, match=r"unknown method 'gptqq': awq, .*did you mean gptq\?"):
        quantize_checkpoint(source, tmp_path / "made", method="gptqq")
    with pytest.raises(ValueError, match="q_proj: group size 48 does not divide K = 128"):
        quantize_checkpoint(source, tmp_path / "made", method="awq", group_size=48)
    (tmp_path / "made").mkdir()
    with pytest.raises(FileExistsError, match="exists already"):
        quantize_checkpoint(source, tmp_path / "made", method="awq", group_size=GROUP)


def test_values_that_do_not_fit(tmp_path):
    tensors = {k: v.astype(ml_dtypes.bfloat16) for k, v in dense_tensors(CONFIG).items()}
    tensors[Q_PROJ + ".weight"][0, 0] = 1e30
    source = write_directory(tmp_path / "source", CONFIG, tensors)
    with pytest.raises(CheckpointError, match="q_proj: expected finite values that float16 can hold"):
        quantize_checkpoint(source, tmp_path / "made", method="awq", group_size=GROUP)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_full_disk(tmp_path, source, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(_writer.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OSError, match=r"disk full: 0 MB needed, 0 MB free") as caught:
        quantize_checkpoint(source, tmp_path / "made", method="awq", group_size=GROUP)
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_quantize.SafetensorsWriter, "write", fail)
    with pytest.raises(OSError, match=r"disk full while writing.*made"):
        quantize_checkpoint(source, tmp_path / "made", method="awq", group_size=GROUP)
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_kill_leaves_nothing_that_looks_finished(tmp_path, source):
    script = """
        import os, signal, sys
        from qforensics.quantize import quantize_checkpoint
        def stop(_, done, total):
            if done == 3:
                os.kill(os.getpid(), signal.SIGKILL)
        quantize_checkpoint(sys.argv[1], sys.argv[2], method="awq", group_size=32, progress=stop)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(source), str(tmp_path / "made")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "made").exists()
    assert len([p for p in tmp_path.iterdir() if "partial" in p.name]) == 1
    quantize_checkpoint(source, tmp_path / "made", method="awq", group_size=GROUP)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made", "source"]


def test_writer_refuses_what_was_not_announced(tmp_path):
    half, word = np.zeros(2, np.float16), np.zeros(1, np.int32)
    specs = [_writer.TensorSpec("a", "F16", (2,)), _writer.TensorSpec("b", "I32", (1,))]
    with _writer.SafetensorsWriter(tmp_path / "x", specs, {}) as writer:
        writer.write("b", word)
        with pytest.raises(KeyError):
            writer.write("c", half)
        with pytest.raises(ValueError, match=r"announced F16 \[2\], given float32 \[2\]"):
            writer.write("a", half.astype(np.float32))
        writer.write("a", half)
        with pytest.raises(KeyError):
            writer.write("a", half)
    with pytest.raises(ValueError, match="a is listed twice"):
        _writer.SafetensorsWriter(tmp_path / "z", [specs[0], specs[0]], {})
    unfinished = _writer.SafetensorsWriter(tmp_path / "y", specs, {})
    unfinished.write("a", half)
    with pytest.raises(ValueError, match="1 announced tensors were not written, b first"):
        unfinished.__exit__(None, None, None)
