"""A prompt in chunks: the rows of every step, whose bits they have, and that a replay follows what a trace records."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import qforensics as qf
from family_models import DTYPES, tokens, write_model
from qforensics.quantize import quantize_checkpoint

SHAPE = {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 512}
PROMPT = tokens(900, 61)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "fp16", "qwen3", DTYPES["fp16"], **SHAPE)
    quantize_checkpoint(folder / "fp16", folder / "gptq", method="gptq", group_size=64)
    return folder


@pytest.fixture(scope="module")
def exllama(models):
    """Its kernel is another one above 50 rows."""
    return qf.load_model(models / "gptq", variant="gptq", deterministic=True)


@pytest.fixture(scope="module")
def quiet(models):
    return qf.load_model(models / "fp16", variant="fp16", profile="fp32")


def steps(trace):
    return [tuple(step) for step in trace.provenance["rows"]]


def test_a_limit_that_the_prompt_fits_changes_nothing(exllama):
    whole = exllama.generate(PROMPT, max_new_tokens=4)
    for limit in (61, 62, 1 << 40):
        found = exllama.generate(PROMPT, max_new_tokens=4, max_num_batched_tokens=limit)
        assert found.numbers_digest == whole.numbers_digest
        assert steps(found) == steps(whole) == [("prefill", 61)] + [("decode", 1)] * 3
        assert found.provenance["max_num_batched_tokens"] == limit
    assert whole.provenance["max_num_batched_tokens"] is None


@pytest.mark.parametrize("limit", [60, 32, 16, 7, 1])
def test_chunks_have_the_same_bits_where_no_sum_depends_on_the_rows(quiet, limit):
    whole = quiet.generate(PROMPT, max_new_tokens=4)
    found = quiet.generate(PROMPT, max_new_tokens=4, max_num_batched_tokens=limit)
    full, rest = divmod(61, limit)
    chunks = [("prefill", limit)] * full + [("prefill", rest)] * (rest > 0)
    assert steps(found) == chunks + [("decode", 1)] * 3
    assert found.numbers_digest == whole.numbers_digest


@pytest.mark.parametrize("limit", [60, 16, 1])
def test_a_replay_follows_the_recorded_chunks(exllama, limit, tmp_path):
    """The control: replayed in one step, where the kernel is another one, it differs."""
    exllama.generate(PROMPT, max_new_tokens=4, max_num_batched_tokens=limit).save(tmp_path / "t.trace")
    reference = qf.Trace.load(tmp_path / "t.trace")
    replay = exllama.teacher_force(reference)
    assert steps(replay) == steps(reference)
    comparison = qf.compare(reference, replay)
    assert (comparison.differing, comparison.conditions) == (0, ())
    assert comparison.compared >= 64 * 20
    whole = qf.compare(reference, exllama.teacher_force(reference, max_num_batched_tokens=1 << 20))
    assert whole.differing > (0 if limit == 60 else whole.compared / 2)
    assert len(whole.conditions) == 1
    assert "went through in steps of" in whole.conditions[0]


def test_logprobs_asked_for_by_id_come_from_their_chunk(quiet):
    whole = quiet.generate(PROMPT, max_new_tokens=4, top_k=50)
    few = [quiet.teacher_force(whole, top_k=3, max_num_batched_tokens=limit) for limit in (1 << 20, 9)]
    assert few[0].prefill == few[1].prefill
    assert few[0].prefill.entries == whole.prefill.entries


def scheduled(prompts, new_tokens, limit):
    """vLLM's schedule in words of its own: requests in order, a step's room to each, one row for a decoding one."""
    computed, wanted, found = [0] * len(prompts), [p + new_tokens - 1 for p in prompts], []
    while computed != wanted:
        room, phase = limit, "decode"
        for i, prompt in enumerate(prompts):
            ready = prompt - computed[i] if computed[i] < prompt else min(1, wanted[i] - computed[i])
            rows = min(room, ready)
            phase = "prefill" if rows and computed[i] < prompt else phase
            computed[i], room = computed[i] + rows, room - rows
        found.append((phase, limit - room))
    return found


@pytest.mark.parametrize("limit", [16, 41, 3, 100])
def test_a_batch_goes_through_as_vllm_schedules_it(quiet, limit):
    prompts = [tokens(900, count, seed=count) for count in (5, 40, 3)]
    alone = [quiet.generate(prompt, max_new_tokens=6) for prompt in prompts]
    together = quiet.generate_batch(prompts, max_new_tokens=6, max_num_batched_tokens=limit)
    assert [t.numbers_digest for t in together] == [t.numbers_digest for t in alone]
    assert steps(together[0]) == scheduled([5, 40, 3], 6, limit)
    again = quiet.teacher_force_batch(together)
    assert [t.numbers_digest for t in again] == [t.numbers_digest for t in alone]
    assert steps(again[0]) == steps(together[0])


def test_progress_counts_rows(quiet):
    seen = []
    quiet.generate(PROMPT, max_new_tokens=3, max_num_batched_tokens=30, progress=lambda *step: seen.append(step))
    assert seen == [(30, 63), (60, 63), (61, 63), (62, 63), (63, 63)]


@pytest.mark.parametrize("recorded", [0, "8192", True, [4]])
def test_a_recorded_limit_that_is_none_is_refused(quiet, recorded):
    trace = quiet.generate(PROMPT[:5], max_new_tokens=1)
    forged = replace(trace, provenance={**trace.provenance, "max_num_batched_tokens": recorded})
    with pytest.raises(ValueError, match="integer of at least 1"):
        quiet.teacher_force(forged)
    with pytest.raises(ValueError, match="the same integer"):
        quiet.teacher_force_batch([trace, forged])


@pytest.mark.parametrize("limit", [0, -1])
def test_no_room_is_refused(quiet, limit):
    with pytest.raises(ValueError, match=f"max_num_batched_tokens must be at least 1, got {limit}"):
        quiet.generate(PROMPT, max_new_tokens=1, max_num_batched_tokens=limit)


def test_traces_without_a_record_are_replayed_whole(quiet):
    """Recorded runs and traces of earlier versions say nothing of chunks."""
    trace = quiet.generate(PROMPT, max_new_tokens=2)
    known = {k: v for k, v in trace.provenance.items() if k not in ("max_num_batched_tokens", "rows")}
    replay = quiet.teacher_force(replace(trace, provenance=known))
    assert steps(replay) == [("prefill", 61), ("decode", 1)]
    assert replay.numbers_digest == trace.numbers_digest


def test_chunks_of_attention_are_named_as_unconfirmed(models):
    for device, name in (("h200", "fa3"), ("a100", "fa2")):
        model = qf.load_model(models / "fp16", variant="fp16", device=device)
        whole = model.generate(PROMPT, max_new_tokens=2)
        chunked = model.teacher_force(whole, max_num_batched_tokens=16)
        notes = [
            [note for note in trace.provenance["unconfirmed"]["prefill"] if f"attention {name}: a prompt in ch" in note]
            for trace in (whole, chunked)
        ]
        assert [len(found) for found in notes] == [0, 1]
        assert np.isfinite(chunked.prefill.logprobs).all()
