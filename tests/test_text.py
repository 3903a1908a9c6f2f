"""Text for people: the checkpoint's tokenizer against transformers', refusals, and no control characters."""

from __future__ import annotations

import json
import shutil
import sys
import types
from dataclasses import replace

import huggingface_hub
import pytest
import transformers

import forensics_doubles as doubles
from checkpoint_files import CONFIG, dense_tensors, write_directory
from qforensics.cli.runs import _prompts
from qforensics.prepare import DEFAULT_MODEL, FORMS, prepared_path
from qforensics.recordings import prompts, recording
from qforensics.text import Tokenizer, quoted, tokenizer_of, tokenizer_of_trace

TEXTS = ["The capital of France is", "x = 1234 + \u00e9\u4e16\n\t<|im_start|>user\n", "", "  two  spaces "]


@pytest.fixture(scope="module")
def prepared(demo_model):
    return {form: prepared_path(form) for form in FORMS}


def test_equals_transformers(prepared):
    theirs = transformers.AutoTokenizer.from_pretrained(prepared["fp16"])
    ours = Tokenizer(prepared["fp16"])
    for text in TEXTS:
        ids = theirs(text)["input_ids"]
        assert ours.encode(text) == ids
        assert ours.decode(ids) == theirs.decode(ids, clean_up_tokenization_spaces=False) == text


def test_text_prompts_of_a_hub_id(prepared, tmp_path, monkeypatch):
    """The tokenizer is the one of the repository's snapshot."""
    snapshot = write_directory(tmp_path / "snapshot", CONFIG, dense_tensors(CONFIG))
    shutil.copy(prepared["fp16"] / "tokenizer.json", snapshot)
    sha = types.SimpleNamespace(sha="c0ffee" * 6 + "abcd")
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: sha)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(snapshot))
    (tmp_path / "prompts.json").write_text(json.dumps(TEXTS[:2]))
    expected = [tokenizer_of(DEFAULT_MODEL).encode(text) for text in TEXTS[:2]]
    assert _prompts(tmp_path / "prompts.json", "some/model") == expected


def test_recordings_prompt_is_readable(prepared):
    text = tokenizer_of(DEFAULT_MODEL).decode(prompts()[0])
    assert text.startswith("The verification of claims")
    assert tokenizer_of(DEFAULT_MODEL).encode(text) == prompts()[0]


def test_a_trace_names_its_model_by_digest(prepared):
    trace = recording("awq")
    assert tokenizer_of_trace(trace) is None  # a recording names no checkpoint
    named = replace(trace, provenance={"digests": {"checkpoint": FORMS["awq"]}})
    assert tokenizer_of_trace(named) is not None
    assert tokenizer_of_trace(replace(trace, provenance={"digests": {"checkpoint": "0" * 64}})) is None
    assert tokenizer_of_trace(doubles.small_trace()) is None


def test_refusals(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="found none; give token ids"):
        Tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "nonsense"}}))
    with pytest.raises(ValueError, match="expected a tokenizer, found"):
        Tokenizer(tmp_path / "model.gguf")
    with pytest.raises(ValueError, match="did you mean smollm2-135m-padded"):
        tokenizer_of("smollm2-135m")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match="tokenizers package"):
        Tokenizer(tmp_path)


def test_quotes_hold_no_control_characters():
    assert quoted('a\n\x1b[31m\x9b\u2028\u00e9"') == '"a\\n\\u001b[31m\\x9b\\u2028\u00e9\\""'
