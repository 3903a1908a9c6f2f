"""The engine by native kernels against the engine on the CPU and by the CUDA emulator: every logprob's bits, and what
the trace says ran. Recorded decode steps (CUDA graphs) against steps run call by call."""

import functools
from pathlib import Path

import numpy as np
import pytest

import qforensics as qf
from conftest import TRACES
from family_models import DTYPES, FAMILIES, METHODS, PACKABLE, tokens, write_model
from qforensics import _core, prepare
from qforensics.quantize import quantize_checkpoint
from random_engine import RandomEngine

RUNS = TRACES / "vllm-0.21.0-h200"
#: What runs natively at M = 1 on a Hopper GPU, by the variant; the Marlin names, not looked at, run Machete.
NATIVE = {"awq": "kernel awq", "gptq": "kernel exllama",
          "pytorch_int4": "kernel tinygemm"}  # fmt: skip


@functools.cache
def hopper() -> bool:
    return any(name in _core.gpu_info(0)["name"] for name in ("H100", "H200"))


def same_runs(path: Path, *, rows: int = 61, **options: object) -> qf.Trace:
    """Generates on the CPU, replays natively (and emulated): the same bits. Returns the native trace."""
    wanted = qf.load_model(path, **options).generate(tokens(900, rows), max_new_tokens=7, top_k=7)
    for executor in ("cuda", "native"):
        found = qf.load_model(path, executor=executor, **options).teacher_force(wanted)
        comparison = qf.compare(wanted, found)
        assert comparison.prefill.compared >= (rows - 1) * 7
        assert comparison.decode.compared >= 7 * 7
        assert comparison.differing == 0, (executor, comparison)
        assert found.numbers_digest == wanted.numbers_digest
        for fact in ("unconfirmed", "layers", "rows", "racing"):
            assert found.provenance[fact] == wanted.provenance[fact], fact
        assert found.provenance["executor"]["name"] == executor
    return found


def test_the_fp32_profile_is_emulated(tmp_path):
    write_model(tmp_path / "m", "qwen3", DTYPES["fp16"])
    trace = same_runs(tmp_path / "m", variant="fp16", profile="fp32")
    assert trace.provenance["executor"]["schemes"] == {"fp32": ["definition"]}


@pytest.mark.parametrize("device", ["a100", "h200"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_the_cpus_bits(tmp_path, family, dtype, device):
    write_model(tmp_path / "m", family, DTYPES[dtype])
    ran = same_runs(tmp_path / "m", variant="fp16", device=device).provenance["executor"]
    if not hopper():
        return
    if device == "a100":
        assert ran["schemes"] == {"cublas": ["pinned"]}
    else:
        assert set(ran["layers"]) == {"qkv_proj", "o_proj", "gate_up_proj", "down_proj", "lm_head"}
        assert ran["layers"]["o_proj"] == {"1": ["kernel one_walk"], "61": ["kernel one_walk"]}


@pytest.mark.parametrize("rows", [61, 300])
@pytest.mark.parametrize("device", ["a100", "h200"])
@pytest.mark.parametrize("method", METHODS)
def test_every_int4_variant_has_the_cpus_bits(tmp_path, method, device, rows):
    """gptq races: the drawn order is the same, too."""
    write_model(tmp_path / "source", "qwen3", DTYPES["fp16"], **PACKABLE)
    quantize_checkpoint(tmp_path / "source", tmp_path / "int4", method=method, group_size=64)
    for variant in METHODS[method]:
        ran = same_runs(tmp_path / "int4", rows=rows, variant=variant, device=device, seed=3).provenance["executor"]
        if hopper() and device == "h200" and variant in NATIVE:
            assert ran["layers"]["o_proj"]["1"] == [NATIVE[variant]], variant


def test_batches_have_the_cpus_bits(tmp_path):
    write_model(tmp_path / "m", "qwen3", DTYPES["bf16"])
    prompts = [tokens(900, count, seed=count) for count in (5, 40, 1, 200)]
    cpu = qf.load_model(tmp_path / "m", variant="fp16").generate_batch(prompts, max_new_tokens=9, top_k=50)
    native = qf.load_model(tmp_path / "m", variant="fp16", executor="native").teacher_force_batch(cpu)
    assert [t.numbers_digest for t in native] == [t.numbers_digest for t in cpu]


def decode_bits(engine: RandomEngine, prompt: list[int], steps: int) -> bytes:
    answer = engine.run([prompt], steps)["sequences"][0]
    return b"".join(answer[p][k].tobytes() for p in ("prefill", "decode") for k in ("targets", "ids", "logprobs"))


@pytest.mark.parametrize(("executor", "device"), [("native", "h200"), ("cuda", "a100")])
def test_recorded_steps_have_the_bits_of_single_calls(executor, device):
    """Past a change of the attention's parts (which takes another recording), and in a second run."""
    engine = RandomEngine(executor, layers=2, kernel="awq", device=device)
    prompt = tokens(151936, 1015)
    recorded = [decode_bits(engine, prompt, 20) for _ in range(2)]
    engine.engine.set_recording(on=False)
    single = decode_bits(engine, prompt, 20)
    assert recorded == [single, single]
    assert decode_bits(engine, prompt[1:], 20) != single


def test_two_layers_of_an_8b_model_have_the_cpus_bits():
    prompt = tokens(151936, 70)
    runs = {e: decode_bits(RandomEngine(e, layers=2, kernel="awq", device="h200"), prompt, 6) for e in
            ("cpu", "native")}  # fmt: skip
    assert runs["native"] == runs["cpu"]


def test_another_gpu_differs(tmp_path):
    """The control: what must be told apart is."""
    write_model(tmp_path / "m", "qwen3", DTYPES["fp16"])
    wanted = qf.load_model(tmp_path / "m", variant="fp16", device="a100").generate(tokens(900, 61), max_new_tokens=5)
    found = qf.load_model(tmp_path / "m", variant="fp16", device="h200", executor="native").teacher_force(wanted)
    assert qf.compare(wanted, found).differing > wanted.prefill.entries / 2


REPLAYS = [
    ("awq.json", "awq", 0), ("awq_marlin.json", "awq_marlin", 0), ("gptq_marlin.json", "gptq_marlin", 0),
    ("fp16.json", "fp16", 0), ("long/awq-eager.json", "awq", 1),
]  # fmt: skip


@pytest.mark.parametrize(("file", "variant", "index"), REPLAYS)
def test_replays_a_recorded_run_bit_for_bit(file, variant, index):
    prepare.prepare([qf.variants.variant(variant).form])
    model = qf.load_model(prepare.DEFAULT_MODEL, variant=variant, device="h200", executor="native")
    reference = qf.import_trace(RUNS / file, index)
    comparison = qf.compare(reference, model.teacher_force(reference))
    assert (comparison.prefill.differing, comparison.decode.differing) == (0, 0), comparison


def test_a_false_hypothesis_differs_in_most_entries():
    prepare.prepare(["awq"])
    reference = qf.import_trace(RUNS / "awq.json", 0)
    model = qf.load_model(prepare.DEFAULT_MODEL, variant="awq", device="a100", executor="native")
    comparison = qf.compare(reference, model.teacher_force(reference))
    assert comparison.differing > (comparison.prefill.compared + comparison.decode.compared) / 2


def test_logits_in_blocks_of_rows_run_natively_with_their_bits():
    """lm_head over more rows than a block of logits holds."""
    prompt = tokens(151936, 300)
    engines = {e: RandomEngine(e, layers=1, kernel="awq", device="h200") for e in ("cuda", "native")}
    runs = {e: engine.run([prompt], 1)["sequences"][0]["prefill"] for e, engine in engines.items()}
    for key in ("ids", "logprobs"):
        assert runs["native"][key].tobytes() == runs["cuda"][key].tobytes()
    assert len(np.unique(runs["native"]["logprobs"])) > 1000
    if hopper():
        ran = engines["native"].engine.executor()["layers"]["lm_head"]
        assert set(ran[299]) == {"kernel one_walk"}
