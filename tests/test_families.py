"""Llama, Qwen2 and Qwen3 end to end: random models that transformers wrote, against transformers' own fp32 forward."""

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import qforensics as qf
from family_models import (
    BOUND,
    DTYPES,
    FAMILIES,
    all_logprobs,
    change_config,
    distance,
    reference_logprobs,
    tokens,
    write_model,
)


def fp32(path, **options):
    return qf.load_model(path, variant="fp16", profile="fp32", threads=2, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_logprob_is_transformers(tmp_path, family, dtype):
    """A prompt of 230 tokens, then 20 decode steps: all logprobs of all positions."""
    reference = write_model(tmp_path / "m", family, DTYPES[dtype])
    vocabulary = reference.config.vocab_size
    trace = fp32(tmp_path / "m").generate(tokens(vocabulary, 230), max_new_tokens=20, top_k=vocabulary)
    ids = trace.prompt_ids.tolist() + trace.generated_ids.tolist()
    expected = reference_logprobs(reference, ids)
    assert distance(all_logprobs(trace.prefill, vocabulary), expected[:229]) <= BOUND
    assert distance(all_logprobs(trace.decode, vocabulary), expected[229:249]) <= BOUND
    assert trace.generated_ids.tolist() == expected[229:249].argmax(axis=1).tolist()
    assert trace.provenance["unconfirmed"] == {"prefill": [], "decode": []}  # nothing is claimed of any engine


def change_tensor(path, name, change):
    tensors = load_file(path / "model.safetensors")
    assert name in tensors
    tensors[name] = change(tensors[name]).astype(tensors[name].dtype)
    save_file(tensors, path / "model.safetensors")


FORGOTTEN = {
    "theta": ("llama", lambda path: change_config(path, rope_parameters=None, rope_theta=5e5)),
    "epsilon": ("llama", lambda path: change_config(path, rms_norm_eps=3e-3)),
    "untied head": ("llama", lambda path: change_config(path, tie_word_embeddings=True)),
    "rope scaling": ("llama3", lambda path: change_config(path, rope_parameters=None, rope_theta=5e5)),
    "bias": ("qwen2", lambda path: change_tensor(path, "model.layers.1.self_attn.k_proj.bias", np.zeros_like)),
    "query norm": ("qwen3", lambda path: change_tensor(path, "model.layers.1.self_attn.q_norm.weight", np.ones_like)),
    "key norm": ("qwen3", lambda path: change_tensor(path, "model.layers.0.self_attn.k_norm.weight", np.ones_like)),
}


@pytest.mark.parametrize("what", FORGOTTEN)
def test_whatever_is_forgotten_shows(tmp_path, what):
    """The negative control of the test above: each feature that a reader could lose moves some logprob ten bounds."""
    family, forget = FORGOTTEN[what]
    reference = write_model(tmp_path / "m", family, torch.float16)
    vocabulary, ids = reference.config.vocab_size, tokens(reference.config.vocab_size, 230)
    forget(tmp_path / "m")
    trace = fp32(tmp_path / "m").generate(ids, max_new_tokens=0, top_k=vocabulary)
    assert distance(all_logprobs(trace.prefill, vocabulary), reference_logprobs(reference, ids)[:-1]) > 10 * BOUND


@pytest.mark.parametrize("family", FAMILIES)
def test_one_token_at_a_time_and_batches_give_the_same_bits(tmp_path, family):
    """The fp32 profile adds in an order that no number of rows changes."""
    vocabulary = write_model(tmp_path / "m", family, torch.float16).config.vocab_size
    model, ids = fp32(tmp_path / "m"), tokens(vocabulary, 60)
    whole = model.generate(ids, max_new_tokens=1, top_k=vocabulary)
    forced = qf.Trace(whole.prompt_ids[:1], whole.prompt_ids[1:], whole.prefill.head(0), whole.prefill, vocabulary)
    steps = model.teacher_force(forced)
    assert [rows for _, rows in steps.provenance["rows"]] == [1] * 59
    assert steps.decode == whole.prefill
    other = tokens(vocabulary, 33, seed=1)
    batch = model.generate_batch([other, ids], max_new_tokens=4)
    assert [trace.numbers_digest for trace in batch] == [
        model.generate(prompt, max_new_tokens=4).numbers_digest for prompt in (other, ids)
    ]


def test_every_position_and_none_beyond(tmp_path):
    """max_position_embeddings is 251: a prompt of 251 runs (its last row predicts without a new position), 252 not."""
    reference = write_model(tmp_path / "m", "llama", torch.float16)
    model, ids = fp32(tmp_path / "m"), tokens(1003, 252)
    trace = model.generate(ids[:251], max_new_tokens=1, top_k=1003)
    expected = reference_logprobs(reference, ids[:251])
    assert distance(all_logprobs(trace.prefill, 1003)[-1:], expected[-2:-1]) <= BOUND
    assert distance(all_logprobs(trace.decode, 1003), expected[-1:]) <= BOUND
    for prompt, new in ((252, 1), (251, 2)):
        with pytest.raises(ValueError, match="at most 251 positions"):
            model.generate(ids[:prompt], max_new_tokens=new)


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_float32_weights_are_not_rounded(tmp_path, family):
    """A checkpoint in float32, under the profile that computes in it; and the control: its weights rounded to fp16."""
    reference = write_model(tmp_path / "m", family, torch.float32)
    vocabulary, ids = reference.config.vocab_size, tokens(reference.config.vocab_size, 100)
    expected = reference_logprobs(reference, ids)[:-1]
    found = {}
    for name in ("m", "rounded"):
        if name == "rounded":
            reference.half().save_pretrained(tmp_path / name)
        trace = fp32(tmp_path / name).generate(ids, max_new_tokens=0, top_k=vocabulary)
        found[name] = distance(all_logprobs(trace.prefill, vocabulary), expected)
    assert found["m"] <= BOUND / 10  # the rounding of the weights alone shows in the next line
    assert found["rounded"] > BOUND
