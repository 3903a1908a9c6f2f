"""A small model's prefill, batch and decode steps, for compute-sanitizer:

    PYTHONPATH=python:tests compute-sanitizer --tool memcheck --error-exitcode 9 python tests/gpu/sanitize_engine.py

A process of its own writes the model, because that needs transformers, whose import a sanitizer slows down. Without
torch's cache every tensor is an allocation of its own, so that a read past its end shows.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path


def write(folder: Path) -> None:
    import torch

    from family_models import write_model
    from qforensics.quantize import quantize_checkpoint

    shape = {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 512}
    write_model(folder / "fp16", "qwen3", torch.float16, vocab_size=1003, **shape)
    quantize_checkpoint(folder / "fp16", folder / "awq", method="awq", group_size=64)


def run(folder: Path) -> None:
    import qforensics as qf

    for form, variant, device, profile, executor in (
        ("fp16", "fp16", "h200", "fp32", "cuda"), ("awq", "awq", "a100", None, "cuda"),
        ("fp16", "fp16", "h200", None, "cuda"), ("fp16", "fp16", "h200", None, "native"),
        ("awq", "awq", "h200", None, "native"),
    ):  # fmt: skip
        model = qf.load_model(folder / form, variant, device, profile, executor=executor)
        traces = model.generate_batch([list(range(5, 75)), [7, 8, 9]], max_new_tokens=3, top_k=5)
        model.teacher_force_batch(traces, top_k=2)
        print(variant, device, executor, profile or "", traces[0].numbers_digest[:12], flush=True)


if __name__ == "__main__":
    if sys.argv[1:]:
        write(Path(sys.argv[1]))
    else:
        os.environ["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, __file__, folder], check=True)
            run(Path(folder))
