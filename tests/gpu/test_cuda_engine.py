"""The engine on a GPU against the engine on the CPU, and against recorded runs: every logprob's bits."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import qforensics as qf
from conftest import TRACES
from family_models import DTYPES, FAMILIES, METHODS, PACKABLE, tokens, write_model
from qforensics import _core, prepare
from qforensics.plans import make_plan
from qforensics.quantize import quantize_checkpoint
from random_engine import RandomEngine

RUNS = TRACES / "vllm-0.21.0-h200"


def same_runs(path: Path, **options: object) -> qf.Trace:
    """Generates on the CPU, replays on the GPU: the same bits, digests and path notes. Returns the GPU's trace."""
    wanted = qf.load_model(path, **options).generate(tokens(900, 61), max_new_tokens=5, top_k=7)
    found = qf.load_model(path, executor="cuda", **options).teacher_force(wanted)
    comparison = qf.compare(wanted, found)
    assert comparison.prefill.compared >= 60 * 7
    assert comparison.decode.compared >= 5 * 7
    assert comparison.differing == 0, comparison
    assert found.numbers_digest == wanted.numbers_digest
    for fact in ("unconfirmed", "layers", "rows", "racing"):
        assert found.provenance[fact] == wanted.provenance[fact], fact
    return found


@pytest.mark.parametrize("device", ["a100", "h200"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_the_cpus_bits(tmp_path, family, dtype, device):
    write_model(tmp_path / "m", family, DTYPES[dtype])
    trace = same_runs(tmp_path / "m", variant="fp16", device=device)
    executor = trace.provenance["executor"]
    assert executor["name"] == "cuda"
    assert executor["gpu"] == _core.gpu_info(0)["name"]
    own = "H100" in executor["gpu"] or "H200" in executor["gpu"]
    if own:
        assert executor["schemes"] == {"cublas": ["native" if device == "h200" else "pinned"]}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_fp32_profile_has_the_cpus_bits(tmp_path, family):
    write_model(tmp_path / "m", family, DTYPES["fp16"])
    same_runs(tmp_path / "m", variant="fp16", profile="fp32")


@pytest.mark.parametrize("device", ["a100", "h200"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_every_int4_variant_has_the_cpus_bits(tmp_path, family, method, device):
    """gptq races: the drawn order is the same, too."""
    write_model(tmp_path / "source", family, DTYPES["fp16"], **PACKABLE)
    quantize_checkpoint(tmp_path / "source", tmp_path / "int4", method=method, group_size=64)
    for variant in METHODS[method]:
        same_runs(tmp_path / "int4", variant=variant, device=device, seed=3)


def by_id(rows: qf.LogprobRows) -> list[dict[int, bytes]]:
    """Per row: id -> bits."""
    spans = [slice(*span) for span in zip(rows.offsets[:-1], rows.offsets[1:], strict=True)]
    return [{int(i): v.tobytes() for i, v in zip(rows.ids[s], rows.logprobs[s], strict=True)} for s in spans]


def test_batches_and_requested_ids_have_the_cpus_bits(tmp_path):
    write_model(tmp_path / "m", "llama", DTYPES["fp16"])
    prompts = [tokens(900, count, seed=count) for count in (5, 40, 1, 200)]
    cpu = qf.load_model(tmp_path / "m", variant="fp16").generate_batch(prompts, max_new_tokens=6, top_k=50)
    gpu = qf.load_model(tmp_path / "m", variant="fp16", executor="cuda")
    for wanted, found in zip(cpu, gpu.teacher_force_batch(cpu), strict=True):
        assert found.numbers_digest == wanted.numbers_digest
    for wanted, found in zip(cpu, gpu.teacher_force_batch(cpu, top_k=3), strict=True):  # 47 ids are asked for singly
        for a, b in ((wanted.prefill, found.prefill), (wanted.decode, found.decode)):
            assert by_id(a) == by_id(b)


def test_another_gpu_or_weight_differs(tmp_path):
    """The control: what must be told apart is."""
    write_model(tmp_path / "m", "qwen3", DTYPES["fp16"])
    wanted = qf.load_model(tmp_path / "m", variant="fp16", device="a100").generate(tokens(900, 61), max_new_tokens=5)
    found = qf.load_model(tmp_path / "m", variant="fp16", device="h200", executor="cuda").teacher_force(wanted)
    assert qf.compare(wanted, found).differing > wanted.prefill.entries / 2


def test_two_layers_of_an_8b_model_have_the_cpus_bits():
    """Qwen3-8B's shapes and scale of weights, its vocabulary, as an A100; 70 rows, then two decode steps."""
    prompt = tokens(151936, 70)
    cpu, gpu = (
        RandomEngine(executor, layers=2, kernel="marlin", device="a100").run([prompt], 2)["sequences"][0]
        for executor in ("cpu", "cuda")
    )
    for phase in ("prefill", "decode"):
        for key in ("targets", "offsets", "ids", "logprobs"):
            assert gpu[phase][key].tobytes() == cpu[phase][key].tobytes(), (phase, key)
    assert len(cpu["prefill"]["logprobs"]) >= 69 * 20
    assert len(np.unique(cpu["prefill"]["logprobs"])) > 1000  # rows that say different things


@pytest.mark.parametrize(("kernel", "m"), [("marlin", 70), ("awq", 300), ("exllama", 40), ("openvino", 50)])
def test_rows_have_the_bits_of_the_whole_call(kernel, m):
    rng = np.random.default_rng(4)
    n, k, group = 192, 512, 128
    codes, zeros = rng.integers(0, 16, (k, n), dtype=np.uint8), rng.integers(0, 16, (k // group, n), dtype=np.uint8)
    scales = rng.uniform(0.005, 0.02, (k // group, n)).astype(np.float16).view(np.uint16)
    weight = _core.pack_codes(codes, zeros, scales, "fp16", group, None, None)
    wide = kernel == "openvino"
    x = rng.standard_normal((m, k)).astype(np.float32)
    options = _core.KernelOptions()
    options.activation_group = group if wide else 0
    plan = make_plan(kernel, (m, n, k), group, "a100", "fp32" if wide else "fp16", options)._core_plan
    x = x if wide else x.astype(np.float16).view(np.uint16)

    def run(workspace: int, rows: tuple[int, int] | None = None) -> np.ndarray:
        return _core.emulate_gemm_cuda(plan, weight, x, None, 5, False, None, workspace, rows)

    whole = run(_core.default_workspace)
    for first, count in ((0, m), (0, 1), (7, 9), (m - 1, 1), (m // 2, m - m // 2), (3, 0)):
        for workspace in (_core.default_workspace, 1 << 16):
            part = run(workspace, (first, count))
            assert part.shape == (count, n)
            assert part.tobytes() == whole[first : first + count].tobytes(), (first, count)


REPLAYS = [
    ("awq.json", "awq", 0), ("awq_marlin.json", "awq_marlin", 0), ("gptq_marlin.json", "gptq_marlin", 0),
    ("fp16.json", "fp16", 0), ("long/awq-eager.json", "awq", 0), ("long/awq-eager.json", "awq", 1),
    ("long/gptq_marlin-eager.json", "gptq_marlin", 0), ("long/gptq_marlin-eager.json", "gptq_marlin", 1),
]  # fmt: skip


def prepared(variant: str) -> str:
    """The demo model, made where it is not at hand: a machine that reaches no registry fails here, and is told."""
    prepare.prepare([qf.variants.variant(variant).form])
    return prepare.DEFAULT_MODEL


@pytest.mark.parametrize(("file", "variant", "index"), REPLAYS)
def test_replays_a_recorded_run_bit_for_bit(file, variant, index):
    model = qf.load_model(prepared(variant), variant=variant, device="h200", executor="cuda")
    reference = qf.import_trace(RUNS / file, index)
    comparison = qf.compare(reference, model.teacher_force(reference))
    assert (comparison.prefill.differing, comparison.decode.differing) == (0, 0), comparison
    assert comparison.prefill.compared == reference.prefill.entries


def test_replays_a_recorded_batch_bit_for_bit():
    model = qf.load_model(prepared("awq"), variant="awq", device="h200", executor="cuda")
    references = [qf.import_trace(RUNS / "long" / "awq-eager.json", index, part="batch") for index in range(4)]
    replays = model.teacher_force_batch(references)
    assert [qf.compare(a, b).differing for a, b in zip(references, replays, strict=True)] == [0] * 4


def test_a_false_hypothesis_differs_in_most_entries():
    reference = qf.import_trace(RUNS / "awq.json", 0)
    replay = qf.load_model(prepared("awq"), variant="awq", device="a100", executor="cuda").teacher_force(reference)
    comparison = qf.compare(reference, replay)
    assert comparison.differing > (comparison.prefill.compared + comparison.decode.compared) / 2


def test_both_executors_in_one_process_without_torch_imported_first(tmp_path):
    write_model(tmp_path / "m", "qwen3-tied", DTYPES["fp16"])
    code = f"""
import sys
import qforensics as qf
assert "torch" not in sys.modules
runs = [qf.load_model({str(tmp_path / "m")!r}, variant="fp16", executor=e).generate([5, 6, 7], max_new_tokens=2)
        for e in ("cpu", "cuda", "auto")]
assert len({{run.numbers_digest for run in runs}}) == 1
print([run.provenance["executor"]["name"] for run in runs])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['cpu', 'cuda', 'cuda']"


def test_out_of_memory_says_sizes_and_leaves_the_process_usable(tmp_path):
    write_model(tmp_path / "m", "qwen3", DTYPES["fp16"], max_position_embeddings=1 << 17)
    model = qf.load_model(tmp_path / "m", variant="fp16", executor="cuda")
    import torch

    model.generate(tokens(1024, 30), max_new_tokens=2)  # loads what kernels need
    free, _ = torch.cuda.mem_get_info()
    hog = torch.empty(max(0, free - (1 << 30)), dtype=torch.uint8, device="cuda")
    with pytest.raises(ValueError, match=r"^out of GPU memory \([\d.]+ GiB of [\d.]+ GiB free\): "):
        model.generate(tokens(1024, 120000), max_new_tokens=1)
    del hog
    torch.cuda.empty_cache()
    assert model.generate(tokens(1024, 30), max_new_tokens=2).decode.rows == 2
