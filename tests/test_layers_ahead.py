"""Layers that are read side by side reach the engine as those that are read one by one: the same bytes, in order."""

from __future__ import annotations

import numpy as np
import pytest

import qforensics as qf
from family_models import DTYPES, tokens, write_model
from qforensics import _assemble, _model
from qforensics._assemble import assemble
from qforensics.checkpoints import CheckpointError, load
from qforensics.quantize import quantize_checkpoint

SHAPE = {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 512}


class Taken:
    """Notes what an engine is given."""

    def __init__(self):
        self.calls = []

    def set_tensor(self, name, layer, array):
        self.calls.append((layer, name, array.tobytes()))

    def set_linear(self, name, layer, kernel, options, weight, bias):
        numbers = weight.copy()
        self.calls.append((layer, name, kernel, numbers.n, numbers.k, None if bias is None else bias.tobytes()))


@pytest.fixture(scope="module", params=["qwen2", "qwen3", "llama3"])
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param)
    write_model(path / "fp16", request.param, DTYPES["fp16"])
    return path


def given(path, ahead):
    engine = Taken()
    steps = []
    assemble(
        engine, load(path), kernel=lambda layer: "awq", dense_kernel="cublas", dtype="float16", ahead=ahead,
        progress=lambda *step: steps.append(step),
    )  # fmt: skip
    return engine.calls, steps


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_the_engine_is_given_the_same(folder, ahead):
    one_by_one, steps = given(folder / "fp16", 0)
    side_by_side, found = given(folder / "fp16", ahead)
    assert sorted(side_by_side, key=str) == sorted(one_by_one, key=str)
    layers = [call[:2] for call in side_by_side if call[0] >= 0]
    assert layers == [call[:2] for call in one_by_one if call[0] >= 0]
    assert found == steps


@pytest.mark.parametrize("ahead", [0, 4])
def test_a_model_computes_the_same(tmp_path, monkeypatch, ahead):
    write_model(tmp_path / "m", "qwen3", DTYPES["fp16"], **SHAPE)
    quantize_checkpoint(tmp_path / "m", tmp_path / "awq", method="awq", group_size=64)
    wanted = qf.load_model(tmp_path / "awq", variant="awq").generate(tokens(900, 9), max_new_tokens=3)
    used = []

    def with_ahead(*args, **options):
        used.append(options["ahead"])
        return _assemble.assemble(*args, **options | {"ahead": ahead})

    monkeypatch.setattr(_model, "assemble", with_ahead)
    model = qf.load_model(tmp_path / "awq", variant="awq")
    assert used == [0]  # the CPU's memory is the model's
    assert model.generate(tokens(900, 9), max_new_tokens=3).numbers_digest == wanted.numbers_digest


@pytest.mark.parametrize("ahead", [0, 3])
def test_a_weight_that_does_not_fit_is_named(tmp_path, ahead):
    write_model(tmp_path / "m", "llama", DTYPES["bf16"])

    class Large(type(load(tmp_path / "m"))):
        def tensor(self, name):
            found = super().tensor(name)
            return found * np.float32(1e38) if "layers.1.post_attention" in name else found

    source = load(tmp_path / "m")
    source.__class__ = Large
    options = {"kernel": lambda layer: "awq", "dense_kernel": "cublas", "dtype": "float16", "ahead": ahead}
    with pytest.raises(CheckpointError, match=r"model\.layers\.1\.post_attention_layernorm\.weight: expected values"):
        assemble(Taken(), source, **options)
