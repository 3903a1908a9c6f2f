"""Whole recorded vLLM runs, replayed from ids and checkpoint alone, bit for bit."""

import functools

import numpy as np
import pytest

import qforensics as qf
from conftest import TRACES

RUNS = TRACES / "vllm-0.21.0-h200"
REPLAYABLE = ("fp16", "awq", "awq_marlin", "gptq_marlin")


def counts(comparison: qf.Comparison) -> tuple[int, int]:
    return comparison.prefill.differing, comparison.decode.differing


@functools.lru_cache(maxsize=1)
def on_h200(model: str, variant: str) -> qf.Model:
    """Loaded once for tests of one variant that follow each other."""
    return qf.load_model(model, variant=variant, device="h200")


@pytest.fixture(scope="module", autouse=True)
def _released():
    yield
    on_h200.cache_clear()


@pytest.mark.parametrize(("variant", "index"), [(variant, index) for variant in REPLAYABLE for index in (0, 1)])
def test_replays_a_recorded_run_bit_for_bit(demo_model, variant, index):
    reference = qf.import_trace(RUNS / f"{variant}.json", index)
    replay = on_h200(demo_model, variant).teacher_force(reference)
    comparison = qf.compare(reference, replay)
    prompt = (38, 72)[index]
    assert counts(comparison) == (0, 0), comparison
    assert comparison.prefill.compared == reference.prefill.entries > 20 * (prompt - 1)
    assert comparison.decode.compared == reference.decode.entries == 32 * 20
    assert replay.provenance["unconfirmed"] == {"prefill": [], "decode": []}
    assert [rows for _, rows in replay.provenance["rows"]] == [prompt] + [1] * 31
    assert qf.judge(variant, {variant: comparison}).outcome == "match"


@pytest.mark.parametrize(("name", "index"), [("gptq_marlin", 0), ("gptq_marlin", 1), ("awq", 0), ("awq", 1)])
def test_replays_longer_prompts(demo_model, name, index):
    """120 tokens: two blocks of keys. 540: split keys and the combine; awq's large-M path."""
    reference = qf.import_trace(RUNS / "long" / f"{name}-eager.json", index)
    assert reference.prompt_ids.size == (120, 540)[index]
    replay = on_h200(demo_model, name).teacher_force(reference)
    assert counts(qf.compare(reference, replay)) == (0, 0)


@pytest.mark.slow
def test_replays_a_batch_bit_for_bit(demo_model):
    """Four prompts of 120 to 1,300 tokens in one call: one prefill of 2,190 rows, then four rows per decode step."""
    path = RUNS / "long" / "awq-eager.json"
    references = [qf.import_trace(path, index, part="batch") for index in range(4)]
    replays = qf.load_model(demo_model, variant="awq", device="h200").teacher_force_batch(references)
    assert [counts(qf.compare(a, b)) for a, b in zip(references, replays, strict=True)] == [(0, 0)] * 4
    assert sum(reference.prefill.entries for reference in references) == 44222
    assert [rows for _, rows in replays[0].provenance["rows"]] == [2190] + [4] * 15
    assert replays[0].provenance["unconfirmed"] == {"prefill": [], "decode": []}


def test_gptq_prefill_is_exact_and_its_decode_races(demo_model):
    reference = qf.import_trace(RUNS / "gptq.json", 1)  # 72 tokens: dequantize + fp16-accumulating cuBLAS
    model = qf.load_model(demo_model, variant="gptq", device="h200")
    comparison = qf.compare(reference, model.teacher_force(reference))
    assert comparison.prefill.differing == 0
    assert comparison.decode.differing > 0
    verdict = qf.judge("gptq", {"gptq": comparison})
    assert verdict.outcome == "inconclusive"
    assert any("racing atomics" in reason for reason in verdict.reasons)


@pytest.mark.parametrize(
    ("variant", "device", "kernel"),
    [("awq", "a100", None), ("awq_marlin", "h200", None), ("awq", "h200", "marlin"), ("gptq_marlin", "h200", None)],
)
def test_false_hypotheses_differ_in_most_entries(demo_model, variant, device, kernel):
    reference = qf.import_trace(RUNS / "awq.json", 0)
    replay = qf.load_model(demo_model, variant=variant, device=device, kernel=kernel).teacher_force(reference)
    comparison = qf.compare(reference, replay)
    assert comparison.prefill.differing > comparison.prefill.compared // 2


def test_generation_is_greedy_and_repeats(demo_model):
    reference = qf.import_trace(RUNS / "awq.json", 0)
    model = qf.load_model(demo_model, variant="awq", device="h200")
    trace = model.generate(reference.prompt_ids.tolist(), max_new_tokens=6)
    assert trace.generated_ids.tolist() == reference.generated_ids[:6].tolist()
    assert qf.compare(trace, model.teacher_force(trace)).exact


def test_results_do_not_depend_on_threads_or_instruction_set(demo_model):
    prompt = qf.import_trace(RUNS / "gptq_marlin.json", 0).prompt_ids[:20].tolist()
    runs = [
        qf.load_model(demo_model, variant="gptq_marlin", device="a100", threads=threads, isa=isa).generate(
            prompt, max_new_tokens=2
        )
        for threads, isa in ((1, None), (2, None), (3, None), (2, "avx2"), (2, "portable"))
    ]
    assert {trace.numbers_digest for trace in runs} == {runs[0].numbers_digest}


def test_racing_sums_follow_their_seed(demo_model):
    prompt = qf.import_trace(RUNS / "gptq.json", 0).prompt_ids[:12].tolist()

    def run(**options):
        return qf.load_model(demo_model, variant="gptq", **options).generate(prompt, max_new_tokens=1).numbers_digest

    assert run(seed=1) == run(seed=1)
    assert run(seed=1) != run(seed=2)
    assert run(seed=1, deterministic=True) == run(seed=2, deterministic=True)


@pytest.mark.parametrize("variant", ["pytorch_int4", "openvino", "gptq", "awq_marlin"])
def test_every_variant_generates_as_an_a100(demo_model, variant):
    prompt = qf.import_trace(RUNS / "awq.json", 0).prompt_ids.tolist()
    fp16 = qf.load_model(demo_model, variant="fp16", device="a100").generate(prompt, max_new_tokens=2)
    trace = qf.load_model(demo_model, variant=variant, device="a100").generate(prompt, max_new_tokens=2)
    # the same model, quantized: most of the next-token distribution stays
    gap = np.abs(trace.prefill.target_logprobs() - fp16.prefill.target_logprobs())
    assert float(np.median(gap)) < 1.0
    assert trace.provenance["device"] == "a100-sxm4-80gb"


def test_wrong_requests_are_refused(demo_model):
    with pytest.raises(ValueError, match="did you mean awq"):
        qf.load_model(demo_model, variant="awqq")
    model = qf.load_model(demo_model, variant="awq")
    with pytest.raises(ValueError, match="token id 49152 at position 1: the vocabulary has 49152 entries"):
        model.generate([5, 49152], max_new_tokens=1)
    with pytest.raises(ValueError, match="prompt_ids: expected at least one id, found none"):
        model.generate(np.empty(0, np.int64), max_new_tokens=1)
    with pytest.raises(ValueError, match="positions"):
        model.generate([1] * 9000, max_new_tokens=1)
    with pytest.raises(ValueError, match="runs gptq or compressed-tensors, found 'awq'"):
        qf.load_model(model.checkpoint, variant="gptq")
