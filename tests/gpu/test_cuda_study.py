"""Studies on a GPU: chunks and worker processes have the CPU's bits, and what runs out of memory fails alone."""

import functools

import numpy as np
import torch

import qforensics as qf
from family_models import DTYPES, tokens, write_model
from memory_limits import WIDE, load_limited_gpu, long_reference
from qforensics import StudyVariant, Trace
from qforensics.hypotheses import Hypothesis

IDS = 1500
TENSOR = (IDS + 1) * 64 * 128 * 2


def test_chunked_prefill_has_the_cpus_bits(tmp_path):
    write_model(tmp_path / "m", "qwen3", DTYPES["fp16"])
    for device in ("a100", "h200"):
        cpu, gpu = (qf.load_model(tmp_path / "m", "fp16", device, executor=e) for e in ("cpu", "cuda"))
        prompts = [tokens(900, count, seed=count) for count in (5, 140, 3)]
        for limit in (64, 7):
            wanted = cpu.generate_batch(prompts, max_new_tokens=4, max_num_batched_tokens=limit)
            found = gpu.teacher_force_batch(wanted)
            assert [t.numbers_digest for t in found] == [t.numbers_digest for t in wanted]
            assert found[0].provenance["rows"] == wanted[0].provenance["rows"]
            assert len(wanted[0].provenance["rows"]) > 4


def test_worker_processes_give_the_bits_of_one(tmp_path):
    """Two of the first GPU, or one of each of two; the CPU gives the same."""
    write_model(tmp_path / "m", "qwen3", DTYPES["fp16"])
    prompts = [tokens(900, count, seed=count) for count in (30, 70)]
    found = []
    for name, executor, gpus in (
        ("cpu", "cpu", ()),
        ("one", "cuda", ()),
        ("two", "cuda", (0, torch.cuda.device_count() - 1)),
    ):
        variants = [Hypothesis("fp16", d).study_variant(tmp_path / "m", executor=executor) for d in ("a100", "h200")]
        result = qf.study(variants, prompts, work_dir=tmp_path / name, max_new_tokens=4, repeats=2, gpus=gpus)
        assert result.errors == ()
        files = sorted((tmp_path / name).rglob("*.trace"))
        found.append({str(f.relative_to(tmp_path / name)): Trace.load(f).numbers_digest for f in files})
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 4 + 8 + 4
    references = [digest for name, digest in found[0].items() if "/reference/" in name]
    assert len(set(references)) == 4  # the control: two prompts, as two GPUs


def test_a_variant_that_runs_out_of_gpu_memory_fails_alone(tmp_path):
    write_model(tmp_path / "m", "qwen3", torch.float16, **WIDE)
    path = str(tmp_path / "m")
    variants = [
        StudyVariant("first", functools.partial(load_limited_gpu, path, 8 << 30)),
        StudyVariant("large", functools.partial(load_limited_gpu, path, TENSOR // 2)),
        StudyVariant("last", functools.partial(load_limited_gpu, path, 8 << 30)),
    ]
    reference = long_reference(IDS)
    result = qf.study(variants, work_dir=tmp_path / "w", references={"first": [reference]}, repeats=0)
    (error,) = result.errors
    assert (error.variant, error.stage) == ("large", "replay")
    assert "out of GPU memory (" in error.error
    assert "GiB free" in error.error
    assert "Tried to allocate" in error.error
    assert {cell.verified for cell in result.cells} == {"first", "last"}
    first, last = (
        Trace.load(tmp_path / "w" / "traces" / "replay" / "first" / name / "0.trace") for name in ("first", "last")
    )
    assert first.numbers_digest == last.numbers_digest
    assert np.isfinite(first.prefill.logprobs).all()
