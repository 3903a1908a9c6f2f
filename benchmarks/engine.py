"""Tokens per second and memory of the engine on the padded SmolLM2, beside transformers' fp32 forward on this CPU."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

PROMPT, NEW = 128, 17
CASES = [
    (variant, device)
    for device in ("h200", "a100")
    for variant in ("fp16", "awq", "awq_marlin", "gptq", "gptq_marlin", "pytorch_int4")
] + [("openvino", "h200")]


def prompt() -> list[int]:
    return np.random.default_rng(7).integers(1000, 40000, PROMPT).tolist()


def run_case(variant: str, device: str, repeats: int) -> dict[str, object]:
    """In a process of its own, so that its peak memory is the variant's."""
    code = f"import engine, json; print(json.dumps(engine.case({variant!r}, {device!r}, {repeats})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="benchmarks")
    return json.loads(done.stdout.splitlines()[-1])


def case(variant: str, device: str, repeats: int) -> dict[str, object]:
    import qforensics as qf

    start = time.perf_counter()
    model = qf.load_model("smollm2-135m-padded", variant=variant, device=device)
    load = time.perf_counter() - start
    prefill, decode = [], []
    for _ in range(repeats):
        times: list[float] = []
        begin = time.perf_counter()
        model.generate(prompt(), max_new_tokens=NEW, progress=lambda *_, times=times: times.append(time.perf_counter()))
        prefill.append(PROMPT / (times[0] - begin))
        decode.append((NEW - 1) / (times[-1] - times[0]))
    # VmHWM and not ru_maxrss, which a child inherits from the process that forked it
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    peak = int(line.split()[1]) / 1024
    return {
        "variant": variant,
        "device": device,
        "load_s": load,
        "prefill_tokens_per_s": statistics.median(prefill),
        "decode_tokens_per_s": statistics.median(decode),
        "peak_mib": peak,
        "checkpoint_mib": model.checkpoint.bytes_on_disk / 2**20,
    }


def transformers_case(repeats: int) -> dict[str, object]:
    """fp32 forward of the same model: the prompt at once, then one token at a time with its cache."""
    import torch
    from transformers import AutoModelForCausalLM

    from qforensics import prepare

    path = prepare.prepare(["fp16"])["fp16"]
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    prefill, decode = [], []
    with torch.inference_mode():
        for _ in range(repeats):
            begin = time.perf_counter()
            out = model(torch.tensor([prompt()]), use_cache=True)
            torch.log_softmax(out.logits.float(), -1)
            middle = time.perf_counter()
            prefill.append(PROMPT / (middle - begin))
            for _ in range(NEW - 1):
                out = model(out.logits[:, -1:].argmax(-1), past_key_values=out.past_key_values, use_cache=True)
            decode.append((NEW - 1) / (time.perf_counter() - middle))
    return {"prefill_tokens_per_s": statistics.median(prefill), "decode_tokens_per_s": statistics.median(decode)}


def measure(*, quick: bool) -> dict[str, object]:
    repeats = 2 if quick else 5
    reference = transformers_case(repeats)
    base_prefill, base_decode = reference["prefill_tokens_per_s"], reference["decode_tokens_per_s"]
    print(f"transformers fp32: prefill {base_prefill:.0f} tokens/s, decode {base_decode:.1f} tokens/s")
    print(
        f"{'variant':14}{'device':8}{'prefill/s':>10}{'ratio':>7}{'decode/s':>10}{'ratio':>7}"
        f"{'peak MiB':>10}{'x file':>8}"
    )
    found = []
    for variant, device in CASES[:6] if quick else CASES:
        row = run_case(variant, device, repeats)
        found.append(row)
        prefill, decode = row["prefill_tokens_per_s"], row["decode_tokens_per_s"]
        print(
            f"{variant:14}{device:8}{prefill:10.0f}{prefill / base_prefill:7.2f}"
            f"{decode:10.1f}{decode / base_decode:7.2f}"
            f"{row['peak_mib']:10.0f}{row['peak_mib'] / row['checkpoint_mib']:8.2f}",
            flush=True,
        )
    return {"prompt": PROMPT, "new": NEW, "transformers_fp32": reference, "cases": found}
