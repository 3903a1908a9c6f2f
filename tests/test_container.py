"""The safe container: what was written comes back, and nothing else is ever accepted."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forensics_doubles import small_trace
from qforensics import ContainerError, Trace
from qforensics.container import ArraySpec, array_digest, read_container, write_container

ARRAYS = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array([7], np.int64)}
SPECS = {"x": ArraySpec(np.float32, 2), "n": ArraySpec(np.int64)}


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "a.trace"
    write_container(path, kind="thing", version=3, fields={"a": [1, None, "é"]}, arrays=ARRAYS)
    return path


def read(path, **options):
    return read_container(path, **({"kind": "thing", "version": 3, "arrays": SPECS} | options))


def test_round_trip(file):
    fields, arrays = read(file)
    assert fields == {"a": [1, None, "é"]}
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert arrays[name].tobytes() == array.tobytes()
        assert arrays[name].shape == array.shape
        assert not arrays[name].flags.writeable
    assert [p.name for p in file.parent.iterdir()] == ["a.trace"]


def test_is_a_plain_safetensors_file(file):
    assert safetensors.numpy.load_file(file)["x"].tolist() == ARRAYS["x"].tolist()


def test_trace_round_trip(tmp_path):
    trace = small_trace()
    trace.save(tmp_path / "t")
    assert Trace.load(tmp_path / "t") == trace
    assert Trace.load(tmp_path / "t").provenance == trace.provenance


def test_every_changed_bit_is_refused(tmp_path):
    small_trace(length=1, prompt=(1, 2)).save(tmp_path / "t")
    raw = (tmp_path / "t").read_bytes()
    bad = tmp_path / "bad"
    for bit in range(len(raw) * 8):
        data = bytearray(raw)
        data[bit // 8] ^= 1 << (bit % 8)
        bad.write_bytes(data)
        with pytest.raises(ContainerError, match="bad"):
            Trace.load(bad)


def test_truncated_and_oversized_files_are_refused(file):
    raw = file.read_bytes()
    for data in (b"", raw[:5], *(raw[:n] for n in range(8, len(raw), 37)), raw[:-1], raw + b"\0", raw + raw):
        file.write_bytes(data)
        with pytest.raises(ContainerError):
            read(file)


def rewritten(header: dict, arrays=ARRAYS) -> bytes:
    return safetensors.numpy.save(
        arrays, metadata={k: v if isinstance(v, str) else json.dumps(v) for k, v in header.items()}
    )


def good_header(arrays=ARRAYS, **changes):
    """A header that is consistent in itself, digest included, with changes made before the digest is taken."""
    from qforensics.container import _header_digest

    header = {"arrays": {n: array_digest(a) for n, a in arrays.items()}, "fields": {}, "version": 3} | changes
    return {"qforensics.thing": header | {"digest": _header_digest(header)}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: rewritten({}), "metadata: expected one key"),
        (lambda: rewritten({"qforensics.other": {}}), "metadata: expected one key"),
        (lambda: rewritten(good_header() | {"more": "x"}), "metadata: expected one key"),
        (lambda: rewritten({"qforensics.thing": "{"}), "expected JSON"),
        (lambda: rewritten({"qforensics.thing": "[" * 100_000}), "expected JSON"),
        (lambda: rewritten({"qforensics.thing": '{"version": NaN}'}), "expected JSON"),
        (lambda: rewritten({"qforensics.thing": '{"version": 3, "version": 3}'}), "appears twice"),
        (lambda: rewritten({"qforensics.thing": '{"version": 1e999}'}), "beyond the range of a double"),
        (lambda: rewritten({"qforensics.thing": '{"version": ' + "[" * 940 + "]" * 940 + "}"}), "expected"),
        (lambda: rewritten({"x" * 5000: "{}"}), "metadata: expected one key .*[.][.][.]$"),
        (lambda: rewritten({"qforensics.thing": []}), "found list"),
        (lambda: rewritten({"qforensics.thing": {"version": 3}}), "found .'version'."),
        (lambda: rewritten(good_header(version=4)), "version: expected 3, found 4"),
        (lambda: rewritten(good_header(version=True)), "version: expected 3, found True"),
        (lambda: rewritten(good_header(fields=[])), "objects `arrays` and `fields`"),
        (
            lambda: rewritten({"qforensics.thing": good_header()["qforensics.thing"] | {"fields": {"a": 1}}}),
            "digest: expected",
        ),
        (lambda: rewritten(good_header(), {**ARRAYS, "y": ARRAYS["n"]}), "arrays: expected"),
        (lambda: rewritten(good_header({"n": ARRAYS["n"]}), {"n": ARRAYS["n"]}), "arrays: expected"),
        (lambda: rewritten(good_header(), ARRAYS | {"n": np.array([8], np.int64)}), "array 'n' digest"),
        (lambda: rewritten(good_header(), ARRAYS | {"n": np.array([7], np.int32)}), "dtype: expected int64, found I32"),
        (lambda: rewritten(good_header(), ARRAYS | {"x": np.zeros(6, np.float32)}), "2 dimension"),
        (lambda: rewritten(good_header(), ARRAYS | {"x": np.zeros((2, 3), np.float16)}), "dtype: expected float32"),
    ],
)
def test_wrong_headers_are_refused(tmp_path, data, message):
    path = tmp_path / "f"
    path.write_bytes(data())
    with pytest.raises(ContainerError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_wrong_kind_or_missing_file(file, tmp_path):
    with pytest.raises(ContainerError, match=r"qforensics\.trace"):
        Trace.load(file)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "absent")


def test_a_header_that_promises_much_allocates_little(tmp_path):
    head = json.dumps({"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    for data in (len(head).to_bytes(8, "little") + head, (1 << 62).to_bytes(8, "little") + b"{}", b"\xff" * 8 + head):
        (tmp_path / "f").write_bytes(data)
        tracemalloc.start()
        with pytest.raises(ContainerError):
            read(tmp_path / "f")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 20


def test_well_formed_container_with_a_malformed_trace(tmp_path):
    path = tmp_path / "t"
    small_trace().save(path)
    from qforensics.trace import _ARRAYS

    fields, arrays = read_container(path, kind="trace", version=1, arrays=_ARRAYS)
    cases = [
        ({"top_k": 5}, arrays, "fields"),
        (fields | {"more": 1}, arrays, "fields"),
        (fields | {"top_k": 6}, arrays, "at least top_k = 6"),
        (fields | {"top_k": "5"}, arrays, "top_k"),
        (fields | {"provenance": []}, arrays, "fields"),
        (fields, arrays | {"decode.logprobs": arrays["decode.logprobs"] * np.float32(np.nan)}, "finite"),
        (fields, arrays | {"generated_ids": arrays["generated_ids"][:-1]}, "offsets"),
    ]
    for changed_fields, changed_arrays, message in cases:
        write_container(path, kind="trace", version=1, fields=changed_fields, arrays=changed_arrays)
        with pytest.raises(ContainerError, match=message):
            Trace.load(path)


def test_a_failed_write_leaves_the_old_file(file, monkeypatch):
    before = file.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_container(file, kind="thing", version=3, fields={}, arrays=ARRAYS)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_fuzz_never_does_anything_but_refuse(tmp_path, data):
    path = tmp_path / "fuzz"
    small_trace(length=1, prompt=(1, 2)).save(path)
    raw = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        raw = bytearray(data.draw(st.binary(max_size=200)))
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(raw) - 1))
            raw[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    changed = bytes(raw) != path.read_bytes()
    path.write_bytes(raw)
    if changed:
        with pytest.raises(ContainerError):
            Trace.load(path)
