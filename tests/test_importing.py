"""Every recorded run is read bit for bit; hostile files are refused with file and field."""

from __future__ import annotations

import contextlib
import copy
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import qforensics as qf
from forensics_doubles import RECORDED, recorded_files
from qforensics import ImportFormatError


def runs():
    for path in recorded_files():
        data = json.loads(path.read_text())
        for part in ("traces", "again", "alone", "batch"):
            for index, run in enumerate(data.get(part, [])):
                if run is not None:
                    yield pytest.param(path, part, index, id=f"{path.stem}-{part}-{index}")


@pytest.mark.parametrize(("path", "part", "index"), list(runs()))
def test_bits_are_the_recorded_ones(path, part, index):
    run = json.loads(path.read_text())[part][index]
    trace = qf.import_trace(path, index, part=part)
    assert trace.prompt_ids.tolist() == run["prompt_ids"]
    assert trace.generated_ids.tolist() == run["ids"]
    for rows, maps, targets in (
        (trace.prefill, run["prompt"][1:], run["prompt_ids"][1:]),
        (trace.decode, run["decode"], run["ids"]),
    ):
        assert rows.targets.tolist() == targets
        for i, recorded in enumerate(maps):
            ids, logprobs = rows.row(i)
            assert dict(zip(map(str, ids.tolist()), logprobs.view(np.uint32).tolist(), strict=True)) == recorded
            top = sorted(recorded, key=lambda k: (-float(np.uint32(recorded[k]).view(np.float32)), int(k)))[:20]
            assert ids.tolist()[:20] == [int(k) for k in top]
            assert ids.tolist()[20:] == [t for t in [targets[i]] if str(t) not in top]


def test_default_part_and_provenance():
    trace = qf.import_trace(RECORDED / "gptq.json", 1)
    assert trace.provenance["variant"] == "gptq"
    assert trace.provenance["device"] == "NVIDIA H200"
    assert trace.provenance["engine"] == "vllm 0.21.0"
    assert trace.provenance["environment"] == {"vllm": "0.21.0", "torch": "2.11.0+cu130", "gpu": "NVIDIA H200"}
    assert trace.provenance["repeats_bit_equal"] is False
    assert trace.provenance["again_recorded"] is True
    assert any("gptq_4bit_kernel" in name for name in trace.provenance["kernels"])
    assert qf.import_trace(RECORDED / "awq_marlin-fa2.json").provenance["attention"] == "2"
    long = qf.import_trace(RECORDED / "long" / "awq-compiled.json", 1).provenance
    assert (long["mode"], long["file"]["part"], long["repeats_bit_equal"]) == ("compiled", "alone", True)
    assert qf.import_trace(RECORDED / "long" / "awq-eager.json", 3, part="batch").provenance["batch"] == 4


def test_a_recording_may_say_its_engines_limit(tmp_path):
    data = json.loads((RECORDED / "awq.json").read_text())
    assert "max_num_batched_tokens" not in qf.import_trace(RECORDED / "awq.json").provenance
    for limit, accepted in ((8192, True), (0, False), (True, False), ("8192", False), (None, False)):
        (tmp_path / "r.json").write_text(json.dumps(data | {"max_num_batched_tokens": limit}))
        if accepted:
            assert qf.import_trace(tmp_path / "r.json").provenance["max_num_batched_tokens"] == limit
        else:
            with pytest.raises(ImportFormatError, match="max_num_batched_tokens: expected an integer of at least 1"):
                qf.import_trace(tmp_path / "r.json")


def test_an_imported_trace_survives_its_container(tmp_path):
    trace = qf.import_trace(RECORDED / "long" / "awq-eager.json", 0)
    trace.save(tmp_path / "t")
    assert qf.Trace.load(tmp_path / "t") == trace


@pytest.fixture(scope="module")
def small() -> dict:
    data = json.loads((RECORDED / "awq.json").read_text())
    run = data["traces"][0]
    short = {
        "prompt_ids": run["prompt_ids"][:3],
        "prompt": run["prompt"][:3],
        "ids": run["ids"][:2],
        "decode": run["decode"][:2],
    }
    return data | {"traces": [short], "again": [None], "modules": []}


def change(path: str, value):
    """A change of the item at a path like traces/0/ids (REMOVE removes it)."""

    def apply(data):
        *parents, last = [int(p) if p.isdigit() and not isinstance(data, int) else p for p in path.split("/")]
        item = data
        for part in parents:
            item = item[part if isinstance(item, list) else str(part)]
        key = last if isinstance(item, list) else str(last)
        if value is REMOVE:
            del item[key]
        else:
            item[key] = value(item.get(key) if isinstance(item, dict) else item[key]) if callable(value) else value
        return data

    return apply


REMOVE = object()


def replaced_key(old_to_new):
    return lambda row: {(old_to_new(k) if i == 5 else k): v for i, (k, v) in enumerate(row.items())}


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (lambda d: [], "a recording"),
        (change("traces", REMOVE), "`traces` or `alone`"),
        (change("traces", {}), "traces: expected a list, found dict"),
        (change("traces/0", 5), r"traces\[0\]: expected a run"),
        (change("traces/0", None), r"traces\[0\]: expected a run"),
        (change("variant", REMOVE), "variant: expected a str, found nothing"),
        (change("gpu", 5), "gpu: expected a str, found int"),
        (change("vllm", None), "vllm: expected a str"),
        (change("kernels", "x"), "kernels: expected a list"),
        (change("kernels", [5]), "kernel names"),
        (change("kernels", [[{}]]), "kernel names"),
        (change("mode", {}), "mode, attention: expected text"),
        (change("traces/0/ids", REMOVE), r"traces\[0\].ids: expected a list, found nothing"),
        (change("traces/0/prompt_ids", "abc"), "prompt_ids: expected a list, found str"),
        (change("traces/0/prompt_ids", []), "positions, found 3|expected 0 positions"),
        (change("traces/0/prompt_ids/1", 2**31), r"prompt_ids\[1\]: expected a token id"),
        (change("traces/0/prompt_ids/1", -1), "a token id"),
        (change("traces/0/prompt_ids/1", True), "a token id"),
        (change("traces/0/prompt_ids/1", 1.0), "a token id"),
        (change("traces/0/prompt_ids/1", 49151), "actual token 49151 among the keys"),
        (change("traces/0/ids", lambda v: v[:1]), "decode: expected 1 positions, found 2"),
        (change("traces/0/prompt", lambda v: v[:2]), "prompt: expected 3 positions, found 2"),
        (change("traces/0/prompt/0", {}), "null"),
        (change("traces/0/prompt/1", None), "a map"),
        (change("traces/0/prompt/1", lambda v: dict(list(v.items())[:19])), "20 or 21 entries, found 19"),
        (change("traces/0/prompt/1", lambda v: v | {"49150": 0, "49151": 0}), "20 or 21 entries"),
        (change("traces/0/prompt/1", replaced_key(lambda k: "0" + k)), "decimal token ids"),
        (change("traces/0/prompt/1", replaced_key(lambda k: "x")), "decimal token ids"),
        (change("traces/0/prompt/1", replaced_key(lambda k: "٣")), "decimal token ids"),
        (change("traces/0/prompt/1", replaced_key(lambda k: "9" * 5000)), "decimal token ids"),
        (change("traces/0/prompt/1", replaced_key(lambda k: "4294967296")), "a token id"),
        (change("traces/0/prompt/1/18898", -1), "32 bits"),
        (change("traces/0/prompt/1/18898", 2**32), "32 bits"),
        (change("traces/0/prompt/1/18898", -1.5), "32 bits"),
        (change("traces/0/prompt/1/18898", "0"), "32 bits"),
        (change("traces/0/prompt/1/18898", 0x7FC00000), "finite"),
        (change("traces/0/prompt/1/18898", 0xFF800000), "finite"),
        (change("traces/0/prompt/1/18898", 0), "below the 20 largest"),
    ],
)
def test_hostile_recordings_are_refused(tmp_path, small, apply, message):
    path = tmp_path / "hostile.json"
    path.write_text(json.dumps(apply(copy.deepcopy(small))))
    with pytest.raises(ImportFormatError, match=message) as caught:
        qf.import_trace(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "text",
    ["", "{", "[" * 200_000, '{"a": NaN}', '{"a": 1, "a": 2}', "\x00", '{"a": 1' + "0" * 5000 + "}", b"\xff\xfe\x00"],
)
def test_what_is_not_json_is_refused(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ImportFormatError, match=r"x\.json: file: expected"):
        qf.import_trace(path)


def test_callers_mistakes(tmp_path):
    with pytest.raises(IndexError, match="holds 2 runs, index 2"):
        qf.import_trace(RECORDED / "awq.json", 2)
    with pytest.raises(IndexError):
        qf.import_trace(RECORDED / "awq.json", -1)
    with pytest.raises(TypeError):
        qf.import_trace(RECORDED / "awq.json", "0")
    with pytest.raises(ValueError, match="part: expected one of"):
        qf.import_trace(RECORDED / "awq.json", 0, part="tracs")
    with pytest.raises(ImportFormatError, match="batch: expected a list, found nothing"):
        qf.import_trace(RECORDED / "awq.json", 0, part="batch")
    with pytest.raises(ImportFormatError, match="second run was equal"):
        qf.import_trace(RECORDED / "awq.json", 0, part="again")
    with pytest.raises(FileNotFoundError):
        qf.import_trace(tmp_path / "absent.json")


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4)
)
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_fuzz_imports_or_refuses(tmp_path, small, data):
    document = copy.deepcopy(small)
    for _ in range(data.draw(st.integers(1, 3))):
        node = document
        for _ in range(data.draw(st.integers(0, 4))):
            children = [
                c for c in (node.values() if isinstance(node, dict) else node) if isinstance(c, (dict, list)) and c
            ]
            if not children:
                break
            node = data.draw(st.sampled_from(children))
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        node[data.draw(st.sampled_from(keys))] = data.draw(trees)
    path = tmp_path / "fuzz.json"
    path.write_text(json.dumps(document))
    with contextlib.suppress(ImportFormatError, IndexError):  # nothing else may come out
        trace = qf.import_trace(path)
        assert trace.prefill.rows == trace.prompt_ids.size - 1
