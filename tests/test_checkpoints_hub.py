"""Hub ids: the commit is pinned and recorded, failures say what was tried. And the examples in the docstrings run."""

import dataclasses
import doctest
import fnmatch
import importlib
import shutil
import types

import huggingface_hub
import pytest
from gguf.constants import GGMLQuantizationType

from checkpoint_files import CONFIG, dense_tensors, write_directory
from qforensics.checkpoints import CheckpointError, load
from test_checkpoints_gguf import write_gguf

MODULES = ["checkpoints._types", "quantize._round_to_nearest"]


def test_revision_is_resolved_pinned_and_recorded(tmp_path, monkeypatch):
    path = write_directory(tmp_path / "m", CONFIG, dense_tensors(CONFIG))
    asked = []

    def model_info(_, repository, *, revision):
        asked.append((repository, revision))
        return types.SimpleNamespace(sha="c0ffee" * 6 + "abcd")

    def snapshot_download(repository, *, revision, allow_patterns):
        asked.append((repository, revision))
        assert not any("bin" in p or "pt" in p for p in allow_patterns)  # no pickles
        return str(path)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    checkpoint = load("some/model", revision="main")
    assert asked == [("some/model", "main"), ("some/model", "c0ffee" * 6 + "abcd")]
    assert checkpoint.revision == "c0ffee" * 6 + "abcd"
    assert load(path).revision is None


def test_a_gguf_repository(tmp_path, monkeypatch):
    """The fake hub holds one file and gives what the patterns ask for."""
    repository, snapshot = tmp_path / "hub", tmp_path / "snapshot"
    repository.mkdir()
    snapshot.mkdir()
    config = dataclasses.replace(CONFIG, head_dim=64)
    write_gguf(repository / "model-q4_0.gguf", config, GGMLQuantizationType.Q4_0)
    (repository / "pytorch_model.bin").write_bytes(b"a pickle")

    def snapshot_download(_, *, revision, allow_patterns):
        for file in repository.iterdir():
            if any(fnmatch.fnmatch(file.name, pattern) for pattern in allow_patterns):
                shutil.copy(file, snapshot)
        return str(snapshot)

    sha = types.SimpleNamespace(sha="c0ffee" * 6 + "abcd")
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: sha)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    checkpoint = load("some/model-gguf")
    assert [file.name for file in snapshot.iterdir()] == ["model-q4_0.gguf"]
    assert (checkpoint.format, checkpoint.revision) == ("gguf", sha.sha)
    assert checkpoint.digest() == load(repository / "model-q4_0.gguf").digest()


def test_unreachable_hub(monkeypatch):
    def model_info(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    with pytest.raises(CheckpointError, match="some/model: not a local path, and the hub gave: no route to host"):
        load("some/model")
    for name in ("../model", "a/b/c", "model"):
        with pytest.raises(CheckpointError, match=r"expected a directory, a \.gguf file or a hub id"):
            load(name)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    result = doctest.testmod(importlib.import_module("qforensics." + name))
    assert (result.failed, result.attempted > 0) == (0, True)
