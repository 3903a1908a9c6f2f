"""Hub ids: the commit is pinned and recorded, failures say what was tried. And the examples in the docstrings run."""

import doctest
import importlib
import types

import huggingface_hub
import pytest

from checkpoint_files import CONFIG, dense_tensors, write_directory
from qforensics.checkpoints import CheckpointError, load

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
