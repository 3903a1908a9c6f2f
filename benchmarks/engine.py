"""Tokens per second and memory of the engine on the padded SmolLM2, beside transformers' fp32 forward on this CPU.

Every measurement is a process of its own, so that its peak memory is the variant's; the variants take turns.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from provenance import HERE, spread

PROMPT, NEW = 128, 17
CASES = [
    (variant, device)
    for device in ("h200", "a100")
    for variant in ("fp16", "awq", "awq_marlin", "gptq", "gptq_marlin", "pytorch_int4")
] + [("openvino", "h200")]
TRANSFORMERS = ("transformers", "fp32")
MEASURES = ("load_s", "prefill_tokens_per_s", "decode_tokens_per_s", "peak_mib")


def prompt() -> list[int]:
    return np.random.default_rng(7).integers(1000, 40000, PROMPT).tolist()


def in_process(case: Sequence[str]) -> dict[str, float]:
    """One measurement; the process ends with it."""
    code = f"import engine, json; print(json.dumps(engine.measure_once{tuple(case)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HERE)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_once(variant: str, device: str) -> dict[str, float]:
    """Called in that process."""
    found = transformers_once() if (variant, device) == TRANSFORMERS else model_once(variant, device)
    # VmHWM and not ru_maxrss, which a child inherits from the process that forked it
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {**found, "peak_mib": int(line.split()[1]) / 1024}


def model_once(variant: str, device: str) -> dict[str, float]:
    import qforensics as qf

    start = time.perf_counter()
    model = qf.load_model("smollm2-135m-padded", variant=variant, device=device)
    load = time.perf_counter() - start
    model.generate(prompt(), max_new_tokens=1)  # warms up
    times: list[float] = []
    begin = time.perf_counter()
    model.generate(prompt(), max_new_tokens=NEW, progress=lambda *_: times.append(time.perf_counter()))
    return {
        "load_s": load,
        "prefill_tokens_per_s": PROMPT / (times[0] - begin),
        "decode_tokens_per_s": (NEW - 1) / (times[-1] - times[0]),
        "checkpoint_mib": model.checkpoint.bytes_on_disk / 2**20,
    }


def transformers_once() -> dict[str, float]:
    """fp32 forward of the same model: the prompt at once, then one token at a time with its cache."""
    import torch
    from transformers import AutoModelForCausalLM

    from qforensics import prepare

    path = prepare.prepare(["fp16"])["fp16"]
    start = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    load = time.perf_counter() - start
    with torch.inference_mode():
        model(torch.tensor([prompt()]))  # warms up
        begin = time.perf_counter()
        out = model(torch.tensor([prompt()]), use_cache=True)
        torch.log_softmax(out.logits.float(), -1)
        middle = time.perf_counter()
        for _ in range(NEW - 1):
            out = model(out.logits[:, -1:].argmax(-1), past_key_values=out.past_key_values, use_cache=True)
        end = time.perf_counter()
    return {
        "load_s": load,
        "prefill_tokens_per_s": PROMPT / (middle - begin),
        "decode_tokens_per_s": (NEW - 1) / (end - middle),
        "checkpoint_mib": sum(file.stat().st_size for file in path.glob("*.safetensors")) / 2**20,
    }


def measure(*, quick: bool) -> dict[str, Any]:
    """Median, smallest and largest of every measure, per case."""
    cases = [TRANSFORMERS, *(CASES[:6] if quick else CASES)]
    rounds: dict[tuple[str, str], list[dict[str, float]]] = {case: [] for case in cases}
    for _ in range(2 if quick else 5):
        for case in cases:  # the variants take turns
            rounds[case].append(in_process(case))
    found = [
        {
            "variant": case[0],
            "device": case[1],
            "checkpoint_mib": runs[0]["checkpoint_mib"],
            **{name: spread([run[name] for run in runs]) for name in MEASURES},
        }
        for case, runs in rounds.items()
    ]
    report(found)
    return {"prompt": PROMPT, "new": NEW, "cases": found}


def report(rows: list[dict[str, Any]]) -> None:
    """Medians, their ratios to transformers', and the range of each."""
    base = rows[0]
    print(f"{'variant':14}{'device':8}{'prefill/s':>10}{'range':>14}{'ratio':>7}", end="")
    print(f"{'decode/s':>10}{'range':>14}{'ratio':>7}{'peak MiB':>10}{'x file':>8}")
    for row in rows:
        print(f"{row['variant']:14}{row['device']:8}", end="")
        for name in ("prefill_tokens_per_s", "decode_tokens_per_s"):
            one = row[name]
            ends = f"{one['min']:.4g}..{one['max']:.4g}"
            print(f"{one['median']:10.4g}{ends:>14}{one['median'] / base[name]['median']:7.2f}", end="")
        peak = row["peak_mib"]["median"]
        print(f"{peak:10.0f}{peak / row['checkpoint_mib']:8.2f}")
