"""Where a model computes: what is refused, what a trace says of it. That a GPU gives the CPU's bits: tests/gpu."""

import pytest
import torch
from typer.testing import CliRunner

import qforensics as qf
from family_models import write_model
from qforensics import _core, _gpu, _libtorch
from qforensics.cli import app
from qforensics.hypotheses import Hypothesis

NO_GPU = _core.gpu_count() == 0 or torch.version.cuda is None


def test_a_trace_says_where_it_was_computed(tmp_path):
    write_model(tmp_path / "m", "qwen3-tied", torch.float16)
    model = qf.load_model(tmp_path / "m", variant="fp16")
    assert model.executor == "cpu"
    assert model.generate([5, 6, 7], max_new_tokens=1).provenance["executor"] == {"name": "cpu"}


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="unknown executor 'gpu'; one of: cpu, cuda, native, auto"):
        _gpu.chosen_executor("gpu")


@pytest.mark.skipif(not NO_GPU, reason="a GPU can be used here")
def test_without_a_gpu_the_error_says_what_is_missing(tmp_path):
    write_model(tmp_path / "m", "qwen3-tied", torch.float16)
    with pytest.raises(RuntimeError, match=r"executor 'cuda' cannot be used: .*(driver|CUDA|GPU)"):
        qf.load_model(tmp_path / "m", variant="fp16", executor="cuda")
    assert qf.load_model(tmp_path / "m", variant="fp16", executor="auto").executor == "cpu"


@pytest.mark.skipif(not NO_GPU, reason="a GPU can be used here")
def test_the_command_line_passes_it_on(tmp_path):
    write_model(tmp_path / "m", "qwen3-tied", torch.float16)
    wanted = ["generate", "--model", tmp_path / "m", "--prompt-ids", "5,6", "--output", tmp_path / "a.qftrace"]
    found = {e: CliRunner().invoke(app, [*map(str, wanted), "--executor", e]) for e in ("cpu", "cuda", "tpu")}
    assert [found[e].exit_code for e in ("cpu", "cuda", "tpu")] == [0, 4, 4]
    assert "executor 'cuda' cannot be used" in found["cuda"].stderr
    assert "unknown executor 'tpu'" in found["tpu"].stderr
    loader = Hypothesis.parse("fp16@a100").study_variant(tmp_path / "m", executor="cuda").loader
    with pytest.raises(RuntimeError, match="executor 'cuda' cannot be used"):
        loader()


def test_a_torch_without_cuda_is_named(monkeypatch):
    monkeypatch.setattr(_core, "gpu_count", lambda: 1)
    monkeypatch.setattr(_core, "built_with_cuda", True)
    monkeypatch.setattr(_libtorch, "installed", lambda: ("2.13.0+cpu", None))
    with pytest.raises(RuntimeError, match=r"torch 2.13.0\+cpu was built without CUDA"):
        _gpu.chosen_executor("cuda")
    monkeypatch.setattr(_libtorch, "installed", lambda: (None, None))
    with pytest.raises(RuntimeError, match="torch is not installed"):
        _gpu.chosen_executor("cuda")


def test_a_gpu_that_fails_its_self_test_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(_core, "gpu_count", lambda: 1)
    monkeypatch.setattr(_core, "built_with_cuda", True)
    monkeypatch.setattr(_libtorch, "installed", lambda: ("2.11.0+cu130", "13.0"))
    calls = []

    def contradicts(index: int) -> None:
        calls.append(index)
        raise _core.CoreError("NVIDIA X contradicts its profile: of 128 steps 7 differ")

    monkeypatch.setattr(_core, "require_faithful_gpu", contradicts, raising=False)
    _gpu._self_test.cache_clear()
    for name in ("cuda", "auto"):
        with pytest.raises(RuntimeError, match="NVIDIA X contradicts its profile"):
            _gpu.chosen_executor(name)
    monkeypatch.setattr(_core, "require_faithful_gpu", calls.append, raising=False)
    _gpu._self_test.cache_clear()
    assert [_gpu.chosen_executor("cuda"), _gpu.chosen_executor("cuda")] == ["cuda", "cuda"]
    _gpu._self_test.cache_clear()
    assert calls == [0, 0, 0]  # refused twice, then asked once
