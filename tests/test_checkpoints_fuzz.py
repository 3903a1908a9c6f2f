"""Corrupted bytes anywhere in a checkpoint: read, or refused; never a crash, a hang or a large allocation."""

import json
import shutil
import struct
import tracemalloc
from pathlib import Path

import pytest
from gguf.constants import GGMLQuantizationType as GgmlType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkpoint_files import CONFIG, quantized_tensors, write_directory
from qforensics.checkpoints import CheckpointError, load
from qforensics.quantize import pack_gptq
from test_checkpoints_gguf import write_gguf
from test_checkpoints_packed import GPTQ

FUZZ = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
)
IR = Path(__file__).parent / "data" / "openvino" / "llama-asym"

positions = st.floats(0, 1, exclude_max=True)
edits = st.lists(st.tuples(positions, st.binary(min_size=1, max_size=9)), min_size=1, max_size=4)


def read_everything(path):
    """Read all, under a limit on what Python and NumPy allocate: 20 times the files, and 8 MB."""
    size = sum(f.stat().st_size for f in ([path] if path.is_file() else path.iterdir()))
    tracemalloc.start()
    try:
        checkpoint = load(path)
        for name in checkpoint.names:
            checkpoint.tensor(name)
        for name in checkpoint.linear_names:
            checkpoint.linear(name)
    except CheckpointError as error:
        assert str(path) in str(error)  # noqa: PT017
        assert len(str(error)) < 2000  # noqa: PT017
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 20 * size + 8e6


def apply(data, changes, span):
    """Overwrite bytes at relative positions within the first `span` bytes."""
    result = bytearray(data)
    for place, value in changes:
        at = int(place * span)
        result[at : at + len(value)] = value
    return bytes(result)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def whole(folder):
    write_gguf(folder / "whole.gguf", CONFIG, GgmlType.Q4_0)
    return folder / "whole.gguf"


@pytest.fixture(scope="module")
def gptq(folder):
    path = write_directory(folder / "gptq", CONFIG, quantized_tensors(CONFIG, "gptq", pack_gptq), GPTQ)
    shutil.copytree(path, folder / "original")
    return path


def _status(field: str) -> int:
    """A line of /proc/self/status, in KiB."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field + ":"))
    return int(line.split()[1])


@pytest.fixture(scope="module", autouse=True)
def memory_before() -> int:
    """Memory at the start of this file, after the high-water mark was put back to it."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


@FUZZ
@given(changes=edits, cut=st.one_of(st.none(), positions))
def test_gguf(folder, whole, changes, cut):
    data = apply(whole.read_bytes(), changes, 2500)  # the header, and the first weights
    (folder / "m.gguf").write_bytes(data if cut is None else data[: int(cut * len(data))])
    read_everything(folder / "m.gguf")


@FUZZ
@given(
    words=st.lists(
        st.tuples(positions, st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1])), min_size=1, max_size=3
    )
)
def test_gguf_lengths(folder, whole, words):
    """Extreme 64-bit values where lengths, counts and offsets may be."""
    changes = [(place, struct.pack("<Q", word)) for place, word in words]
    (folder / "m.gguf").write_bytes(apply(whole.read_bytes(), changes, 2500))
    read_everything(folder / "m.gguf")


@FUZZ
@given(changes=edits, cut=st.one_of(st.none(), positions))
def test_safetensors(folder, gptq, changes, cut):
    shutil.copy(folder / "original" / "config.json", gptq)
    data = (folder / "original" / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    broken = apply(data, changes, 8 + length)
    (gptq / "model.safetensors").write_bytes(broken if cut is None else broken[: int(cut * len(broken))])
    read_everything(gptq)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@FUZZ
@given(number=st.integers(0, 30), value=json_values)
def test_settings(folder, gptq, number, value):
    """Any value under any key of config.json and of its quantization_config."""
    shutil.copy(folder / "original" / "model.safetensors", gptq)
    config = json.loads((folder / "original" / "config.json").read_text())
    places = [(config, key) for key in config] + [(config["quantization_config"], key) for key in GPTQ]
    target, key = places[number % len(places)]
    target[key] = value
    (gptq / "config.json").write_text(json.dumps(config))
    read_everything(gptq)


@FUZZ
@given(changes=edits, cut=st.one_of(st.none(), positions))
def test_openvino(folder, changes, cut):
    path = folder / "ir"
    if not path.exists():
        shutil.copytree(IR, path)
    data = (IR / "openvino_model.xml").read_bytes()
    broken = apply(data, changes, len(data))
    (path / "openvino_model.xml").write_bytes(broken if cut is None else broken[: int(cut * len(broken))])
    read_everything(path)


@FUZZ
@given(
    number=st.integers(0, 40),
    value=st.sampled_from(["0", "1", "-1", "7", "4294967296", "99999999999999999999", "x", ""]),
)
def test_openvino_numbers(folder, number, value):
    """Another number in the n-th element_type, shape, offset or size of the constants."""
    path = folder / "ir"
    if not path.exists():
        shutil.copytree(IR, path)
    text = (IR / "openvino_model.xml").read_text()
    marks = ['shape="', 'offset="', 'size="', 'from-layer="', 'to-port="']
    mark, at = marks[number % len(marks)], -1
    for _ in range(1 + 7 * (number // len(marks))):
        at = text.index(mark, at + 1)
    end = text.index('"', at + len(mark))
    (path / "openvino_model.xml").write_text(text[: at + len(mark)] + value + text[end:])
    read_everything(path)


def test_memory_of_this_process_stayed_small(memory_before):
    """The files are below 1 MiB: a quarter of a GiB of growth would be an allocation that a header asked for."""
    assert _status("VmHWM") - memory_before < 256 * 2**10
